-- The earlier decisions on these very records, with the transition if there was one.
SELECT r.record_offset, r.record_timestamp, r.organisation, r.command_id, r.digest, r.status, r.message, r.replayed,
    r.access_token_id, r.version, r.fields, r.decided_at, r.user_id AS refused_user,
    t.from_state, t.to_state, t.occurred_at, t.user_id, t.unit_id, t.command_id AS fact_command_id,
    t.cause, t.sequence, t.previous_hash, t.hash
FROM command_record AS r
LEFT JOIN transition AS t
    ON t.organisation = r.organisation AND t.access_token_id = r.access_token_id AND t.version = r.version
WHERE r.lane = $1 AND r.record_offset BETWEEN $2 AND $3
