-- The next of a lane's transitions in the order of its chain, with the offset of the applied command that each belongs to.
-- The key is that of worker.model.command_key.
SELECT t.organisation, t.access_token_id, t.version, t.from_state, t.to_state, t.occurred_at, t.user_id, t.unit_id,
    t.command_id, t.cause, t.sequence, t.previous_hash, t.hash, r.record_offset
FROM transition AS t
LEFT JOIN command_record AS r
    ON r.command_key = left(encode(sha256(convert_to(t.command_id, 'UTF8')), 'hex'), 32)::uuid
    AND r.organisation = t.organisation AND r.version IS NOT NULL AND r.command_id = t.command_id
WHERE t.lane = $1 AND t.sequence > $2
ORDER BY t.sequence
LIMIT $3
