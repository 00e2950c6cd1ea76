-- The same for one organisation ($1).
SELECT organisation, id, sum(token) OVER ()::integer AS tokens FROM (
    (SELECT organisation, id, 1 AS token FROM access_token WHERE organisation = $1 AND id > $2
        ORDER BY id LIMIT $3)
    UNION ALL
    (SELECT organisation, access_token_id, 0 FROM transition WHERE organisation = $1 AND access_token_id > $2
        ORDER BY access_token_id LIMIT $3)
    ORDER BY organisation, id, token DESC LIMIT $3
) AS next
ORDER BY id DESC
LIMIT 1
