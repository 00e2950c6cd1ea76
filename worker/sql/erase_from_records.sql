-- A digest of an identifier can be compared with guesses. Nothing finds these access tokens ($4) by it any more, nor what
-- was tried on them ($5).
UPDATE command_record AS r SET digest = decode(repeat('00', 32), 'hex')
FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) AS found (lane, record_offset, record_timestamp)
WHERE r.lane = found.lane AND r.record_offset = found.record_offset AND r.record_timestamp = found.record_timestamp
    AND (r.access_token_id = ANY ($4::text[]) OR (r.user_id IS NOT NULL AND r.digest = ANY ($5::bytea[])))
