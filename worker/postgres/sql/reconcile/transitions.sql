-- The next of a lane's transitions in the order of its chain, each with the offset of its applied command, and if that
-- command's record exists; facts from before offsets were stored have neither.
SELECT t.organisation, t.access_token_id, t.version, t.from_state, t.to_state, t.occurred_at, t.user_id, t.unit_id,
    t.command_id, t.cause, t.sequence, t.previous_hash, t.hash, t.record_offset, r.lane IS NOT NULL AS is_recorded
FROM transition AS t
LEFT JOIN command_record AS r
    ON r.lane = t.lane AND r.record_offset = t.record_offset
    AND r.organisation = t.organisation AND r.access_token_id = t.access_token_id AND r.version = t.version
WHERE t.lane = $1 AND t.sequence > $2
ORDER BY t.sequence
LIMIT $3
