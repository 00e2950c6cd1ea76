-- One immutable fact per transition, chained to the one before it in this lane.
INSERT INTO transition (organisation, access_token_id, version, from_state, to_state, occurred_at, user_id, unit_id,
    command_id, cause, lane, sequence, previous_hash, hash)
SELECT e.organisation, e.access_token_id, e.version, e.from_state, e.to_state, $10, e.user_id, e.unit_id, e.command_id,
    'API', $11, e.sequence, e.previous_hash, e.hash
FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::bigint[], $12::bytea[], $13::bytea[])
    AS e (organisation, access_token_id, version, from_state, to_state, user_id, unit_id, command_id, sequence,
        previous_hash, hash)
