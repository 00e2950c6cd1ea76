-- The hashes to verify before the transaction opens, in the order of the identifiers given.
SELECT t.pass_code_hash
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (organisation, identifier, position)
LEFT JOIN access_token AS t ON t.organisation = asked.organisation AND t.identifier = asked.identifier
ORDER BY asked.position
