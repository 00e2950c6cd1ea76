-- Held until the session ends. A number of 64 bits stands for the files: two imports that share one wait for each
-- other.
SELECT pg_advisory_lock($1)
