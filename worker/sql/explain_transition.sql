-- The transition of a command, whose record may be gone. $2 is its organisation, if the id names one.
SELECT organisation, access_token_id, version FROM transition
WHERE command_id = $1 AND ($2::text IS NULL OR organisation = $2)
LIMIT 1
