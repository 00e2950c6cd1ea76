-- What was decided. Fewer rows than decisions mean that another lane bound an id meanwhile. The rows come sorted by id,
-- so that two lanes that bind the same ids wait for each other in one order.
INSERT INTO command_record (lane, record_offset, record_timestamp, organisation, command_key, command_id, digest, status,
    message, replayed, access_token_id, version, fields, decided_at)
SELECT $1, d.record_offset, d.record_timestamp, d.organisation, d.command_key, d.command_id, d.digest, d.status,
    d.message, d.replayed, d.access_token_id, d.version, d.fields, $2
FROM unnest($3::bigint[], $4::bigint[], $5::text[], $6::uuid[], $7::text[], $8::bytea[], $9::text[], $10::text[],
    $11::boolean[], $12::text[], $13::integer[], $14::integer[])
    AS d (record_offset, record_timestamp, organisation, command_key, command_id, digest, status, message, replayed,
        access_token_id, version, fields)
ON CONFLICT DO NOTHING
