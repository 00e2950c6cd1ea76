-- a command's record says when Postgres took it
-- depends: 0005_identity_of_a_log

-- migrate: apply

-- By the only clock that its age is judged by; decided_at is a worker's. Nothing is rewritten: records that are there
-- already count from now on.
ALTER TABLE command_record ADD COLUMN recorded_at timestamptz NOT NULL DEFAULT now();

-- migrate: rollback

ALTER TABLE command_record DROP COLUMN recorded_at;
