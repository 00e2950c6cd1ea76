-- Take the lane as a worker does, so that a worker that still has it loses it and starts again; but only if its row is
-- as it was shown. The lane learns again what its log is from now on.
UPDATE lane SET owner = $2, owned_since = $3, first_offset = $4, next_offset = $5, ordered_offset = $6,
    topic_id = NULL, last_offset = NULL, last_timestamp = NULL, blocked = NULL, blocked_since = NULL
WHERE id = $1 AND first_offset IS NOT DISTINCT FROM $7 AND next_offset IS NOT DISTINCT FROM $8 AND ordered_offset IS NOT DISTINCT FROM $9
RETURNING id
