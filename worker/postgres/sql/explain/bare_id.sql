-- The command ids that end with a sender's name for the command ($1, percent-encoded). Reads the whole record of
-- commands, so it is only run for a text that cannot be a whole id.
SELECT DISTINCT command_id FROM command_record
WHERE right(command_id, length($1) + 1) = ':' || $1 AND left(command_id, 3) IN ('ce:', 'req')
ORDER BY command_id
LIMIT 20
