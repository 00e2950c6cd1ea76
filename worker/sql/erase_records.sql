-- The records of commands that were answered with data of these access tokens ($2), or refused for what they had tried
-- on them ($3, keyed digests). Reads the whole record of commands, and locks nothing.
SELECT lane, record_offset, record_timestamp, command_id FROM command_record
WHERE organisation = $1
    AND (access_token_id = ANY ($2::text[]) OR (user_id IS NOT NULL AND digest = ANY ($3::bytea[])))
