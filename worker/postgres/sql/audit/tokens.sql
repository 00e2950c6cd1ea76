-- The last of the next access tokens, with a history or still there, in the order of their keys; tokens: how many of
-- these are still there.
SELECT organisation, id, sum(token) OVER ()::integer AS tokens FROM (
    (SELECT organisation, id, 1 AS token FROM access_token WHERE (organisation, id) > ($1, $2)
        ORDER BY organisation, id LIMIT $3)
    UNION ALL
    (SELECT organisation, access_token_id, 0 FROM transition WHERE (organisation, access_token_id) > ($1, $2)
        ORDER BY organisation, access_token_id LIMIT $3)
    ORDER BY organisation, id, token DESC LIMIT $3
) AS next
ORDER BY organisation DESC, id DESC
LIMIT 1
