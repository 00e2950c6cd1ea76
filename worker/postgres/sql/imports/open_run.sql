-- The progress of an earlier import of the same files that did not end.
INSERT INTO import_run AS r (digest, touched_at) VALUES ($1, $2)
ON CONFLICT (digest) DO UPDATE SET touched_at = excluded.touched_at
RETURNING file, line, position, read, loaded
