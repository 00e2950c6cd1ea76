-- a lane knows the log that it has decided on, and a contradiction does not dissolve by itself
-- depends: 0004_mended_lanes

-- migrate: apply

-- The topic's id, and the last record that was decided: a topic made anew has another id, a log that was cut another
-- record there. What keeps a lane from starting stands here until a person decides. No default is written to any row.
ALTER TABLE lane
    ADD COLUMN topic_id uuid,
    ADD COLUMN last_offset bigint,
    ADD COLUMN last_timestamp bigint,
    ADD COLUMN blocked text,
    ADD COLUMN blocked_since timestamptz;

-- migrate: rollback

ALTER TABLE lane
    DROP COLUMN topic_id,
    DROP COLUMN last_offset,
    DROP COLUMN last_timestamp,
    DROP COLUMN blocked,
    DROP COLUMN blocked_since;
