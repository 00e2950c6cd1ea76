-- An access token that an earlier line of this import made in another state, and that no command has changed since, is
-- made anew. Its pass code and its log stay, as they do where a line gives none.
DELETE FROM access_token AS t
USING json_populate_recordset(NULL::access_token, $1::text::json) AS line, pg_temp.new_token AS made
WHERE t.organisation = line.organisation AND t.id = line.id AND t.organisation = made.organisation AND t.id = made.id
    AND t.life_cycle_state <> line.life_cycle_state
    AND NOT EXISTS (
        SELECT FROM transition AS f
        WHERE f.organisation = t.organisation AND f.access_token_id = t.id AND f.version = t.version AND f.cause = 'API'
    )
RETURNING t.organisation, t.id, t.pass_code_hash, t.created_date, t.created_by_user, t.created_by_unit,
    t.updated_date, t.updated_by_user, t.updated_by_unit
