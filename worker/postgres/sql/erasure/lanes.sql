-- The topic and partition of every lane, and the offset up to which it has decided by now.
SELECT id, cluster, topic, partition, coalesce(next_offset, 0) AS next_offset FROM lane
