-- Those of these commands, each under every name that it may have, that changed the access token that they name.
SELECT DISTINCT asked.command_id, NULL::bytea AS digest, asked.organisation, asked.access_token_id
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
    AS asked (organisation, access_token_id, command_id, name)
JOIN transition AS t
    ON t.organisation = asked.organisation AND t.access_token_id = asked.access_token_id AND t.command_id = asked.name
