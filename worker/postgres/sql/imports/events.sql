SELECT organisation, access_token_id AS id, version, to_state AS life_cycle_state, occurred_at, sequence, previous_hash, hash
FROM transition
WHERE lane = $1 AND sequence > $2 AND sequence <= $3
ORDER BY sequence
LIMIT $4
