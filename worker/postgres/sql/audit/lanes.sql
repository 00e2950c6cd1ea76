-- The heads of the chains; and how many of each lane's last transitions may not have been published yet. Of a partition
-- those of its last batch, but no more than a batch may have ($1), and only those of the last while ($2), by moments that
-- had to be near the clock: what else the worker's role writes may make them fewer, not more. Of imports, whose lane
-- counts events where others count offsets, those that wait to be announced: that row is not the worker's to write.
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
