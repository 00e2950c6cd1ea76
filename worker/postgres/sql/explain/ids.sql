-- The command ids that are recorded under these keys ($1), for the record at these coordinates, or for the transition
-- that knows its command by the name $7.
SELECT command_id FROM command_record WHERE command_key = ANY ($1::uuid[]) AND version IS NOT NULL
UNION
SELECT command_id FROM command_record WHERE command_key = ANY ($1::uuid[]) AND version IS NULL
UNION
SELECT r.command_id
FROM lane AS l
JOIN command_record AS r ON r.lane = l.id AND r.record_offset = $5 AND r.record_timestamp = $6
WHERE l.cluster = $2 AND l.topic = $3 AND l.partition = $4
UNION
SELECT r.command_id
FROM transition AS t
JOIN command_record AS r ON r.lane = t.lane AND r.record_offset = t.record_offset
    AND r.organisation = t.organisation AND r.access_token_id = t.access_token_id AND r.version = t.version
WHERE t.command_id = $7
