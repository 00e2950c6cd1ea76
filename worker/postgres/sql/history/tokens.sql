-- The access tokens with this id ($1) or, if none has it, with this number; also those of which only a history is left.
-- By key within each organisation; $2 names one, NULL is for all.
WITH asked AS (SELECT id AS organisation FROM organisation WHERE $2::text IS NULL OR id = $2),
found AS (
    SELECT t.organisation, t.id, true AS by_id FROM asked JOIN access_token AS t ON t.organisation = asked.organisation AND t.id = $1
    UNION
    SELECT t.organisation, t.access_token_id, true FROM asked
    JOIN transition AS t ON t.organisation = asked.organisation AND t.access_token_id = $1
    UNION
    SELECT t.organisation, t.id, false FROM asked JOIN access_token AS t ON t.organisation = asked.organisation AND t.number = $1
)
SELECT found.organisation, found.id, t.number, t.life_cycle_state, t.version
FROM found
LEFT JOIN access_token AS t USING (organisation, id)
WHERE found.by_id OR NOT EXISTS (SELECT FROM found WHERE by_id)
ORDER BY found.organisation
