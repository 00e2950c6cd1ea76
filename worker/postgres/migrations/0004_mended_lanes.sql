-- an operator may order where a lane that does not start goes on
-- depends: 0003_import_runs

-- migrate: apply

-- The offset that the lane's next start commits for the group, in place of the one that Kafka has: a group's offsets
-- cannot be set from outside while it works.
ALTER TABLE lane ADD COLUMN ordered_offset bigint CHECK (0 <= ordered_offset);

-- migrate: rollback

ALTER TABLE lane DROP COLUMN ordered_offset;
