-- The access tokens that differ from their histories, and the histories that are not whole: versions count from 1, each
-- transition by a command begins where the one before has ended, and the last one tells who changed the access token
-- and when. A token without a history has version 0 and is not effective; a token that is gone should be there.
WITH step AS (
    SELECT organisation, access_token_id AS id, version, to_state, cause, user_id, unit_id, occurred_at
        , cause <> 'IMPORT' AND lag(version) OVER history IS NOT NULL
            AND from_state IS DISTINCT FROM lag(to_state) OVER history AS is_elsewhere
        , version - lag(version, 1, 0) OVER history <> 1 AS is_gap
        , lead(version) OVER history IS NULL AS is_last
    FROM transition
    WHERE (organisation, access_token_id) > ($1, $2) AND (organisation, access_token_id) <= ($3, $4)
    WINDOW history AS (PARTITION BY organisation, access_token_id ORDER BY version)
), told AS (
    SELECT organisation, id, max(version) AS version, max(to_state) FILTER (WHERE is_last) AS state
        , coalesce(bool_or(is_elsewhere), false) AS is_elsewhere, bool_or(is_gap) AS is_gap
        , max(user_id) FILTER (WHERE is_last AND cause = 'API') AS user_id
        , max(unit_id) FILTER (WHERE is_last AND cause = 'API') AS unit_id
        , max(occurred_at) FILTER (WHERE is_last AND cause = 'API') AS occurred_at
    FROM step
    GROUP BY organisation, id
), compared AS (
    SELECT organisation, id, token.life_cycle_state, token.version, told.state AS told_state
        , told.version AS told_version, token.version IS NULL AS is_gone
        , coalesce(told.is_elsewhere, false) AS is_elsewhere, coalesce(told.is_gap, false) AS is_gap
        , token.version IS NOT NULL AND told.occurred_at IS NOT NULL AND (
            token.updated_by_user, token.updated_by_unit, token.updated_date
        ) IS DISTINCT FROM (
            told.user_id, told.unit_id, date_trunc('second', told.occurred_at AT TIME ZONE 'UTC')::timestamp(0)
        ) AS is_of_others
    FROM (
        SELECT organisation, id, life_cycle_state, version, updated_by_user, updated_by_unit, updated_date
        FROM access_token
        WHERE (organisation, id) > ($1, $2) AND (organisation, id) <= ($3, $4)
    ) AS token FULL JOIN told USING (organisation, id)
)
SELECT * FROM compared
WHERE is_elsewhere OR is_gap OR is_gone OR is_of_others
    OR version <> coalesce(told_version, 0) OR life_cycle_state <> told_state
    OR (told_version IS NULL AND life_cycle_state = 'EFFECTIVE')
ORDER BY organisation, id
