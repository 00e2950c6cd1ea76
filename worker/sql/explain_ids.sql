-- The command ids that are recorded under this key ($1), or for the record at these coordinates.
SELECT command_id FROM command_record WHERE command_key = $1 AND version IS NOT NULL
UNION
SELECT command_id FROM command_record WHERE command_key = $1 AND version IS NULL
UNION
SELECT r.command_id
FROM lane AS l
JOIN command_record AS r ON r.lane = l.id AND r.record_offset = $5 AND r.record_timestamp = $6
WHERE l.cluster = $2 AND l.topic = $3 AND l.partition = $4
