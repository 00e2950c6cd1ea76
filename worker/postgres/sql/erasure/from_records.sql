-- A digest of an identifier can be compared with guesses, and a sender's id for a command may name anyone. After this,
-- no digest finds these access tokens ($7), nor what was tried on them ($8); the command keeps a name that no sender
-- chose ($4, under the key $5). A record that only mentions the customer ($6) keeps its digest.
UPDATE command_record AS r SET command_id = found.name, command_key = found.key
    , digest = CASE
        WHEN r.access_token_id = ANY ($7::text[]) OR (r.user_id IS NOT NULL AND r.digest = ANY ($8::bytea[]))
        THEN decode(repeat('00', 32), 'hex') ELSE r.digest
    END
FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::text[], $5::uuid[], $6::boolean[])
    AS found (lane, record_offset, record_timestamp, name, key, speaks)
WHERE r.lane = found.lane AND r.record_offset = found.record_offset AND r.record_timestamp = found.record_timestamp
    AND (found.speaks OR r.access_token_id = ANY ($7::text[])
        OR (r.user_id IS NOT NULL AND r.digest = ANY ($8::bytea[])))
