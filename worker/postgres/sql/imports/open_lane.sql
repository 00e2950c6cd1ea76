-- No cluster has an empty id. This lane counts events where others count offsets: those up to first_offset are
-- published, those up to next_offset are written. If the lane exists, no value of the sequence of ids is used up.
INSERT INTO lane (cluster, consumer_group, topic, partition, owner, owned_since, first_offset, next_offset)
SELECT '', '', 'import', 0, '00000000-0000-0000-0000-000000000000', now(), 0, 0
WHERE NOT EXISTS (SELECT FROM lane WHERE cluster = '' AND consumer_group = '' AND topic = 'import' AND partition = 0)
ON CONFLICT DO NOTHING
