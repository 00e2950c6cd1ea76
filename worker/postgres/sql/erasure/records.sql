-- The records of commands that were answered with data of these access tokens ($2), refused for what they had tried on
-- them ($3, keyed digests), or given ids by their senders that name the customer ($4, patterns of ids). Reads the whole
-- record of commands, and locks nothing. Of erased ones only the digest's zeros are left.
SELECT lane, record_offset, record_timestamp, command_id
    , coalesce(digest, '') <> decode(repeat('00', 32), 'hex') OR command_id ILIKE ANY ($4::text[]) AS is_held
    , command_id ILIKE ANY ($4::text[]) AS speaks
FROM command_record
WHERE organisation = $1
    AND (access_token_id = ANY ($2::text[]) OR (user_id IS NOT NULL AND digest = ANY ($3::bytea[]))
        OR command_id ILIKE ANY ($4::text[]))
