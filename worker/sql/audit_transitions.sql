-- The next transitions, chain by chain, with their moments as events write them (a forged one may lie beyond every
-- calendar), and with the name and the head of their lane as it is in the same moment; none of a lane that is gone.
SELECT transition.lane, sequence, organisation, access_token_id, version, from_state, to_state
    , to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS occurred_at, user_id, unit_id
    , command_id, cause, previous_hash, hash
    , lane.cluster, lane.consumer_group, lane.topic, lane.partition, lane.chain_sequence, lane.chain_hash
FROM transition LEFT JOIN lane ON lane.id = transition.lane
WHERE (transition.lane, sequence) > ($1, $2)
ORDER BY transition.lane, sequence
LIMIT $3
