SELECT id, partition, first_offset, next_offset FROM lane
WHERE cluster = $1 AND consumer_group = $2 AND topic = $3
ORDER BY partition
