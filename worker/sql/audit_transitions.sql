-- Every transition, chain by chain, with its moment as events write it: a forged one may lie beyond every calendar.
SELECT lane, sequence, organisation, access_token_id, version, from_state, to_state
    , to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS occurred_at, user_id, unit_id
    , command_id, cause, previous_hash, hash
FROM transition
ORDER BY lane, sequence
