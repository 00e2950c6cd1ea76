-- The next transitions, chain by chain, with their moments as events write them (a forged one may lie beyond every
-- calendar), and with the name and the present head of their lane; none if the lane is gone. is_unrecorded: the record
-- of the command should be there and is not. Records are kept for $1; nothing is said of facts from before the offsets
-- of their commands were stored.
SELECT transition.lane, sequence, organisation, access_token_id, version, from_state, to_state
    , to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS occurred_at, user_id, unit_id
    , command_id, cause, previous_hash, hash
    , extract(epoch FROM occurred_at)::float8 AS moment
    , cause = 'API' AND occurred_at > statement_timestamp() - $1::interval AND NOT EXISTS (
        SELECT FROM command_record AS r
        WHERE r.lane = transition.lane AND r.record_offset = transition.record_offset
            AND r.organisation = transition.organisation AND r.version = transition.version
            AND r.access_token_id = transition.access_token_id
      ) AND record_offset IS NOT NULL AS is_unrecorded
    , lane.cluster, lane.consumer_group, lane.topic, lane.partition, lane.chain_sequence, lane.chain_hash
FROM transition LEFT JOIN lane ON lane.id = transition.lane
WHERE (transition.lane, sequence) > ($2, $3)
ORDER BY transition.lane, sequence
LIMIT $4
