-- A digest of an identifier can be compared with guesses, and what a sender called a command may name anybody. Nothing
-- finds these access tokens ($7) by a digest any more, nor what was tried on them ($8); the command keeps a name that
-- nobody chose ($4, under the key $5). One that is not of them and only speaks of the customer ($6) keeps its digest.
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
