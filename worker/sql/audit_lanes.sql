-- The heads of the chains; and how many transitions of each lane's last batch may not have been published yet.
SELECT lane.id, lane.cluster, lane.consumer_group, lane.topic, lane.partition, lane.chain_sequence, lane.chain_hash
    , (SELECT count(*) FROM command_record AS decided
       WHERE decided.lane = lane.id AND decided.record_offset >= lane.first_offset AND decided.version IS NOT NULL
      ) AS unpublished
FROM lane
ORDER BY lane.cluster, lane.consumer_group, lane.topic, lane.partition
