-- Taken like by a worker, so that who still works on it is lost and starts again; but only as it was looked at. What the
-- log is from now on, the lane learns anew.
UPDATE lane SET owner = $2, owned_since = $3, first_offset = $4, next_offset = $5, ordered_offset = $6,
    topic_id = NULL, last_offset = NULL, last_timestamp = NULL, blocked = NULL, blocked_since = NULL
WHERE id = $1 AND first_offset IS NOT DISTINCT FROM $7 AND next_offset IS NOT DISTINCT FROM $8 AND ordered_offset IS NOT DISTINCT FROM $9
RETURNING id
