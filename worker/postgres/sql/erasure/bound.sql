-- Those of these keys that are bound already.
SELECT command_key FROM command_record WHERE command_key = ANY ($1::uuid[]) AND organisation = $2 AND version IS NOT NULL
