-- The transition of a command whose record is gone, by any of its names ($1). $2 is its organisation, if the id names
-- one.
SELECT organisation, access_token_id, version
FROM unnest($1::text[]) AS named (command_id)
JOIN transition USING (command_id)
WHERE $2::text IS NULL OR organisation = $2
LIMIT 1
