-- Those of these command ids ($1, under their keys $2) that are recorded at all. ours: by one of the lanes $3.
SELECT asked.command_id, bool_or(r.lane = ANY ($3::integer[])) AS ours
FROM unnest($1::text[], $2::uuid[]) AS asked (command_id, command_key)
CROSS JOIN LATERAL (
    SELECT lane FROM command_record WHERE command_key = asked.command_key AND version IS NOT NULL
    UNION ALL
    SELECT lane FROM command_record WHERE command_key = asked.command_key AND version IS NULL
) AS r
GROUP BY asked.command_id
