-- The command ids that are recorded of the offset $3 of a partition ($1, $2), of whichever cluster, group and time.
SELECT DISTINCT r.command_id
FROM lane AS l
JOIN command_record AS r ON r.lane = l.id AND r.record_offset = $3
WHERE l.topic = $1 AND l.partition = $2
ORDER BY r.command_id
