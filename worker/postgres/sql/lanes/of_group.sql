SELECT id, topic, partition, owner, owned_since, first_offset, next_offset, ordered_offset, chain_sequence, blocked
FROM lane
WHERE cluster = $1 AND consumer_group = $2 AND topic = ANY ($3::text[])
ORDER BY topic, partition
