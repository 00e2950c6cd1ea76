-- The decisions of the lanes of a group ($2) in a cluster ($1) on these very records, by their number in the request.
SELECT asked.number, r.status, r.message, r.replayed
FROM unnest($3::text[], $4::bigint[], $5::bigint[], $6::bigint[]) WITH ORDINALITY
    AS asked (topic, partition, record_offset, record_timestamp, number)
JOIN lane AS l ON l.cluster = $1 AND l.consumer_group = $2 AND l.topic = asked.topic AND l.partition = asked.partition
JOIN command_record AS r
    ON r.lane = l.id AND r.record_offset = asked.record_offset AND r.record_timestamp = asked.record_timestamp
