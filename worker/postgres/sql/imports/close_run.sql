DELETE FROM import_run WHERE digest = $1
