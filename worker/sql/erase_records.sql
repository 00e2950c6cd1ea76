-- The records of commands that were answered with data of these access tokens. Reads the whole record of commands, and
-- locks nothing.
SELECT lane, record_offset, record_timestamp, command_id FROM command_record
WHERE organisation = $1 AND access_token_id = ANY ($2::text[])
