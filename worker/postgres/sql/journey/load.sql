-- The access tokens that a batch names, by code ($1, $2) or by identifier ($3, $4), locked in the order of their ids,
-- so that two lanes that name the same tokens cannot deadlock.
SELECT t.organisation, t.id, t.life_cycle_state, t.version, t.accounts_receivable, t.authentication_code, t.identifier
FROM (
    SELECT found.organisation, found.id
    FROM unnest($1::text[], $2::text[]) AS asked (organisation, authentication_code)
    JOIN access_token AS found USING (organisation, authentication_code)
    UNION
    SELECT found.organisation, found.id
    FROM unnest($3::text[], $4::text[]) AS asked (organisation, identifier)
    JOIN access_token AS found USING (organisation, identifier)
) AS named
JOIN access_token AS t USING (organisation, id)
ORDER BY t.organisation, t.id
FOR NO KEY UPDATE OF t
