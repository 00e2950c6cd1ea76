-- The session with the oldest transaction: it may hold the lock that a migration did not get.
SELECT pid, coalesce(usename, '') AS name, coalesce(application_name, '') AS application,
    extract(epoch FROM clock_timestamp() - xact_start)::integer AS seconds
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
ORDER BY xact_start
LIMIT 1
