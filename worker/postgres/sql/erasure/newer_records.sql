-- The same (the digests are $5, the patterns $6), but only from the offsets $4 of the lanes $3 on, and of newer lanes.
SELECT r.lane, r.record_offset, r.record_timestamp, r.command_id, true AS is_held
    , r.command_id ILIKE ANY ($6::text[]) AS speaks
FROM lane
LEFT JOIN unnest($3::integer[], $4::bigint[]) AS seen (id, next_offset) USING (id)
JOIN command_record AS r ON r.lane = lane.id AND r.record_offset >= coalesce(seen.next_offset, 0)
WHERE r.organisation = $1
    AND (r.access_token_id = ANY ($2::text[]) OR (r.user_id IS NOT NULL AND r.digest = ANY ($5::bytea[]))
        OR r.command_id ILIKE ANY ($6::text[]))
