-- records are removed by a function that refuses what is not due
-- depends: 0014_erasures

-- migrate: apply

-- One small step: the oldest records of a lane, from the offset `since` on, that are settled (below its first_offset) and
-- past their time, by Postgres's clock alone. The batches of the lane never touch them again, so nothing waits for this.
-- Nothing is done where another step of the lane's is under way, a worker's or one that was given up and has not ended
-- yet: 3703 tells that lock from others, and `turn` says whether it was had. No record goes before it is a day old,
-- whoever asks: the moments are compared, since an interval that is a day by comparison need not be one by the calendar.
CREATE FUNCTION retire_records(
    of_lane integer, age interval, most integer, since bigint, OUT records bigint, OUT last bigint, OUT turn boolean
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before CONSTANT timestamptz := now() - age;
BEGIN
    IF before IS NULL OR before > now() - interval '24 hours' THEN
        RAISE EXCEPTION 'records are kept for a day at least: % is refused', coalesce(age::text, 'no age')
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    WITH mine AS MATERIALIZED (
        SELECT pg_try_advisory_xact_lock(3703, of_lane) AS had
    ), oldest AS (
        SELECT r.record_offset, r.record_timestamp, r.recorded_at
        FROM public.command_record AS r
        JOIN public.lane ON lane.id = r.lane
        WHERE (SELECT had FROM mine)
            AND r.lane = of_lane AND r.record_offset >= since AND r.record_offset < lane.first_offset
        ORDER BY r.record_offset
        LIMIT most
    ), removed AS (
        DELETE FROM public.command_record AS r
        USING oldest
        WHERE r.lane = of_lane AND r.record_offset = oldest.record_offset
            AND r.record_timestamp = oldest.record_timestamp AND oldest.recorded_at < before
        RETURNING r.record_offset
    )
    SELECT count(*), max(record_offset), (SELECT had FROM mine) INTO records, last, turn FROM removed;
END
$$;
REVOKE EXECUTE ON FUNCTION retire_records FROM PUBLIC;

-- migrate: rollback

DROP FUNCTION retire_records;
