-- The heads of the chains, and the number of each lane's last transitions that may not have been published yet. A
-- partition's are those of its last batch, but no more than a batch may have ($1), and only those of the last while
-- ($2), by moments that had to be near the clock: whatever else the worker's role writes may make them fewer, not more.
-- The lane of imports counts events where others count offsets; its are those that wait to be announced: the worker may
-- not write that row.
SELECT lane.id, lane.cluster, lane.consumer_group, lane.topic, lane.partition, lane.chain_sequence, lane.chain_hash
    , CASE WHEN lane.cluster = '' THEN lane.next_offset - lane.first_offset ELSE least((
        SELECT count(*) FROM command_record AS decided
        WHERE decided.lane = lane.id AND decided.record_offset >= lane.first_offset AND decided.version IS NOT NULL
      ), (
        SELECT count(*) FROM transition AS late
        WHERE late.lane = lane.id AND late.sequence > lane.chain_sequence - $1::bigint
            AND late.occurred_at > statement_timestamp() - $2::interval
      )) END AS unpublished
FROM lane
ORDER BY lane.cluster, lane.consumer_group, lane.topic, lane.partition
