-- Every transition of one access token, with the known names of user and unit, and the command's id while its record is
-- kept.
SELECT t.version, t.from_state, t.to_state, t.occurred_at, t.user_id, u.username, t.unit_id, n.name AS unit_name,
    t.command_id, t.cause, t.sequence, t.hash, l.cluster, l.consumer_group, l.topic, l.partition, r.command_id AS called
FROM transition AS t
LEFT JOIN lane AS l ON l.id = t.lane
LEFT JOIN app_user AS u ON u.organisation = t.organisation AND u.id = t.user_id
LEFT JOIN unit AS n ON n.organisation = t.organisation AND n.id = t.unit_id
LEFT JOIN command_record AS r ON r.lane = t.lane AND r.record_offset = t.record_offset
    AND r.organisation = t.organisation AND r.access_token_id = t.access_token_id AND r.version = t.version
WHERE t.organisation = $1 AND t.access_token_id = $2
ORDER BY t.version
