-- The records of the commands with these coordinates. A code is valid in its organisation ($4) only: in another one it
-- belongs to another customer, and so does the command.
SELECT r.lane, r.record_offset, r.record_timestamp, r.command_id
    , NOT starts_with(r.command_id, 'rec:') AND NOT starts_with(r.command_id, 'hmac:') AS is_held, true AS speaks
FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) AS found (lane, record_offset, record_timestamp)
JOIN command_record AS r USING (lane, record_offset, record_timestamp)
WHERE r.organisation IS NULL OR r.organisation = $4
