-- From now on the transactions of an older owner fail: they name its id. Waits for one that is under way.
INSERT INTO lane (cluster, consumer_group, topic, partition, owner, owned_since)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT ON CONSTRAINT lane_coordinates_key
    DO UPDATE SET owner = excluded.owner, owned_since = excluded.owned_since
RETURNING id, first_offset, next_offset, ordered_offset, topic_id, last_offset, last_timestamp, blocked
