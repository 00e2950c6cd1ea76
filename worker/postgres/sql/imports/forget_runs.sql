-- Nobody has gone on with these.
DELETE FROM import_run WHERE touched_at < $1
