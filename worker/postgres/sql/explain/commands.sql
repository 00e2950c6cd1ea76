-- Every record of one command id ($1, under its key $2), in the order in which they were decided.
SELECT r.record_offset, r.record_timestamp, r.organisation, r.status, r.message, r.replayed, r.access_token_id, r.version,
    r.fields, r.decided_at, r.user_id, r.digest, l.cluster, l.consumer_group, l.topic, l.partition
FROM (
    SELECT * FROM command_record WHERE command_key = $2 AND version IS NOT NULL
    UNION ALL
    SELECT * FROM command_record WHERE command_key = $2 AND version IS NULL
) AS r
LEFT JOIN lane AS l ON l.id = r.lane
WHERE r.command_id = $1
ORDER BY r.decided_at, l.partition, r.record_offset
