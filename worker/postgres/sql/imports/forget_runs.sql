-- Forget runs that no import has resumed.
DELETE FROM import_run WHERE touched_at < $1
