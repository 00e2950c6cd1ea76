-- Every answer under these command ids ($1, under their keys $2), in the order in which they were decided.
SELECT r.command_id, r.digest, r.status, r.decided_at
FROM unnest($1::text[], $2::uuid[]) AS asked (command_id, command_key)
JOIN command_record AS r USING (command_id, command_key)
WHERE r.version IS NOT NULL
UNION ALL
SELECT r.command_id, r.digest, r.status, r.decided_at
FROM unnest($1::text[], $2::uuid[]) AS asked (command_id, command_key)
JOIN command_record AS r USING (command_id, command_key)
WHERE r.version IS NULL
ORDER BY decided_at
