-- From now on the transactions of an older owner fail: they name its id. Waits for one that is under way. A known lane
-- uses up no value of the sequence of ids, or starts would exhaust it; of two first starts the later one waits.
WITH known AS (
    UPDATE lane SET owner = $5, owned_since = $6
    WHERE cluster = $1 AND consumer_group = $2 AND topic = $3 AND partition = $4
    RETURNING id, first_offset, next_offset, ordered_offset, topic_id, last_offset, last_timestamp, blocked
), made AS (
    INSERT INTO lane (cluster, consumer_group, topic, partition, owner, owned_since)
    SELECT $1, $2, $3, $4, $5, $6 WHERE NOT EXISTS (SELECT FROM known)
    ON CONFLICT ON CONSTRAINT lane_coordinates_key
        DO UPDATE SET owner = excluded.owner, owned_since = excluded.owned_since
    RETURNING id, first_offset, next_offset, ordered_offset, topic_id, last_offset, last_timestamp, blocked
)
SELECT * FROM known UNION ALL SELECT * FROM made
