-- One small step: the oldest records of a lane that are settled (below its first_offset) and past their time ($2).
-- The batches of the lane never touch them again, so nothing waits for this.
WITH oldest AS (
    SELECT r.record_offset, r.record_timestamp, r.decided_at
    FROM command_record AS r
    JOIN lane ON lane.id = r.lane
    WHERE r.lane = $1 AND r.record_offset < lane.first_offset
    ORDER BY r.record_offset
    LIMIT $3
)
DELETE FROM command_record AS r
USING oldest
WHERE r.lane = $1 AND r.record_offset = oldest.record_offset AND r.record_timestamp = oldest.record_timestamp
    AND oldest.decided_at < $2
