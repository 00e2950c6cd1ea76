-- Up to where every lane has decided by now, and what it reads.
SELECT id, cluster, topic, partition, coalesce(next_offset, 0) AS next_offset FROM lane
