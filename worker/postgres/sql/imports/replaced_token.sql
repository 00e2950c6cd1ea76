-- Replace an access token that an earlier line of this import ($2; $1 is the lane of imports) created in another state,
-- and that no command has changed since. Its pass code and its log stay, as they do if a line gives none.
WITH replaced AS (
    DELETE FROM access_token AS t
    USING pg_temp.staged_access_token AS line
    WHERE t.organisation = line.organisation AND t.id = line.id AND t.life_cycle_state <> line.life_cycle_state
        AND (
            SELECT f.cause = 'IMPORT' AND f.lane = $1 AND f.sequence <@ (SELECT made FROM import_run WHERE digest = $2)
            FROM transition AS f
            WHERE f.organisation = t.organisation AND f.access_token_id = t.id AND f.version = t.version
        )
    RETURNING t.organisation, t.id, t.pass_code_hash, t.created_date, t.created_by_user, t.created_by_unit,
        t.updated_date, t.updated_by_user, t.updated_by_unit
)
UPDATE pg_temp.staged_access_token AS line
SET pass_code_hash = coalesce(line.pass_code_hash, former.pass_code_hash),
    created_date = coalesce(line.created_date, former.created_date),
    created_by_user = coalesce(line.created_by_user, former.created_by_user),
    created_by_unit = coalesce(line.created_by_unit, former.created_by_unit),
    updated_date = coalesce(line.updated_date, former.updated_date),
    updated_by_user = coalesce(line.updated_by_user, former.updated_by_user),
    updated_by_unit = coalesce(line.updated_by_unit, former.updated_by_unit)
FROM replaced AS former
WHERE line.organisation = former.organisation AND line.id = former.id
