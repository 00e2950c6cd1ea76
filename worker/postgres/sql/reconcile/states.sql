-- The access tokens whose state is not the one that their last transition reached. A token without a transition has
-- version 0.
SELECT a.organisation, a.id, a.life_cycle_state, a.version, last.to_state, last.version AS last_version
FROM access_token AS a
LEFT JOIN (
    SELECT DISTINCT ON (organisation, access_token_id) organisation, access_token_id, version, to_state
    FROM transition
    WHERE (organisation, access_token_id) > ($1, $2) AND (organisation, access_token_id) <= ($3, $4)
    ORDER BY organisation, access_token_id, version DESC
) AS last ON last.organisation = a.organisation AND last.access_token_id = a.id
WHERE (a.organisation, a.id) > ($1, $2) AND (a.organisation, a.id) <= ($3, $4)
    AND (a.version <> coalesce(last.version, 0) OR a.life_cycle_state <> last.to_state)
ORDER BY a.organisation, a.id
