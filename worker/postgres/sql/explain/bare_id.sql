-- The command ids that end with what a sender called the command ($1, percent-encoded). Reads the whole record, so it is
-- asked for what can be no whole id only.
SELECT DISTINCT command_id FROM command_record
WHERE right(command_id, length($1) + 1) = ':' || $1 AND left(command_id, 3) IN ('ce:', 'req')
ORDER BY command_id
LIMIT 20
