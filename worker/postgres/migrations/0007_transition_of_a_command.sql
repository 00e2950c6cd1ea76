-- the transition of a command is found by its id when its record is gone
-- depends: 0006_recorded_at
-- transaction: false

-- migrate: apply

-- Nobody waits for any of this but this itself, which must outlast every transaction that is open.
SET lock_timeout = 0;

-- One that was cut short has left an index that is of no use.
DROP INDEX CONCURRENTLY IF EXISTS transition_command_idx;

-- Of the id nothing but its hash: a transition writes little more, and none of an import.
CREATE INDEX CONCURRENTLY transition_command_idx ON transition USING hash (command_id) WHERE command_id IS NOT NULL;

-- As it was (worker/migrate.py), for what comes after this.
SET lock_timeout = '500ms';

-- migrate: rollback

DROP INDEX CONCURRENTLY IF EXISTS transition_command_idx;
