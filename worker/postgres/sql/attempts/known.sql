-- The failures in guessing identifiers, in the order of those given: the caller's own in a row, and those of all
-- callers, of each no more than $5. Ages are in seconds.
SELECT coalesce(own.failures, 0) AS failures,
    extract(epoch FROM statement_timestamp() - own.last_at)::float8 AS since,
    coalesce(everybody.failures, 0) AS all_failures,
    extract(epoch FROM statement_timestamp() - everybody.last_at)::float8 AS all_since
FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[])
    WITH ORDINALITY AS asked (organisation, user_id, account, identifier, position)
LEFT JOIN attempt AS own ON own.organisation = asked.organisation AND own.identifier = asked.identifier
    AND own.kind = 'identifier' AND own.user_id = asked.user_id AND own.account = asked.account
CROSS JOIN LATERAL (
    SELECT sum(least(a.failures, $5::bigint))::bigint AS failures, max(a.last_at) AS last_at FROM attempt AS a
    WHERE a.organisation = asked.organisation AND a.identifier = asked.identifier AND a.failures > 0
) AS everybody
ORDER BY asked.position
