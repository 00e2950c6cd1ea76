-- Every transition, chain by chain.
SELECT lane, sequence, organisation, access_token_id, version, from_state, to_state, occurred_at, user_id, unit_id
    , command_id, cause, previous_hash, hash
FROM transition
ORDER BY lane, sequence
