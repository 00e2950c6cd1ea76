-- The heads of the chains; and how many of each lane's last transitions may not have been published yet: those of its
-- last batch, or of imports, whose lane counts events where others count offsets.
SELECT lane.id, lane.cluster, lane.consumer_group, lane.topic, lane.partition, lane.chain_sequence, lane.chain_hash
    , CASE WHEN lane.cluster = '' THEN lane.next_offset - lane.first_offset ELSE (
        SELECT count(*) FROM command_record AS decided
        WHERE decided.lane = lane.id AND decided.record_offset >= lane.first_offset AND decided.version IS NOT NULL
      ) END AS unpublished
FROM lane
ORDER BY lane.cluster, lane.consumer_group, lane.topic, lane.partition
