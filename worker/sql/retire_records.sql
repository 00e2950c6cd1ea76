-- One small step: the oldest records of a lane, from the offset $4 on, that are settled (below its first_offset) and past
-- their time ($2), by Postgres's clock alone. The batches of the lane never touch them again, so nothing waits for this.
-- Nothing is done where another step of the lane's is under way, a worker's or one that was given up and has not ended
-- yet: $5 tells that lock from others, and turn says whether it was had.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock($5::integer, $1::integer) AS had
), oldest AS (
    SELECT r.record_offset, r.record_timestamp, r.recorded_at
    FROM command_record AS r
    JOIN lane ON lane.id = r.lane
    WHERE (SELECT had FROM turn)
        AND r.lane = $1 AND r.record_offset >= $4 AND r.record_offset < lane.first_offset
    ORDER BY r.record_offset
    LIMIT $3
), removed AS (
    DELETE FROM command_record AS r
    USING oldest
    WHERE r.lane = $1 AND r.record_offset = oldest.record_offset AND r.record_timestamp = oldest.record_timestamp
        AND oldest.recorded_at < now() - $2::interval
    RETURNING r.record_offset
)
SELECT count(*) AS records, max(record_offset) AS last, (SELECT had FROM turn) AS turn FROM removed
