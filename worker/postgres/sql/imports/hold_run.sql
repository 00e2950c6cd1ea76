-- Until the session ends. A number of 64 bits stands for the files: two that share one would wait for each other.
SELECT pg_advisory_lock($1)
