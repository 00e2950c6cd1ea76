-- The access tokens whose state and version are not those that their histories lead to, and the histories that are not
-- whole: versions count from 1, each transition by a command begins where the one before has ended. One without a history
-- has version 0; a history outlives its access token.
WITH step AS (
    SELECT organisation, access_token_id AS id, version, to_state
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
    FROM step
    GROUP BY organisation, id
)
SELECT organisation, id, token.life_cycle_state, token.version, told.state AS told_state, told.version AS told_version
    , coalesce(told.is_elsewhere, false) AS is_elsewhere, coalesce(told.is_gap, false) AS is_gap
FROM (
    SELECT * FROM access_token WHERE (organisation, id) > ($1, $2) AND (organisation, id) <= ($3, $4)
) AS token FULL JOIN told USING (organisation, id)
WHERE told.is_elsewhere OR told.is_gap
    OR token.version <> coalesce(told.version, 0) OR token.life_cycle_state <> told.state
ORDER BY organisation, id
