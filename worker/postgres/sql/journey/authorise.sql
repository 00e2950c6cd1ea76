-- The callers of a batch, in the order of the logins given: their ids, if they have the right that is asked for at this
-- moment, the number of their codes and of their pass codes that have failed in a row, and the seconds since the last failure of each.
SELECT o.id IS NOT NULL AS organisation_known, u.id AS user_id, n.id AS unit_id,
    r.jti IS NOT NULL AS revoked, coalesce(login.asked_right = ANY (u.rights), false) AS allowed,
    c.failures AS codes, extract(epoch FROM statement_timestamp() - c.last_at)::float8 AS codes_since,
    p.failures AS pass_codes, extract(epoch FROM statement_timestamp() - p.last_at)::float8 AS pass_codes_since
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
    WITH ORDINALITY AS login (organisation, username, unit, jti, asked_right, account, position)
LEFT JOIN organisation AS o ON o.id = login.organisation AND o.active
LEFT JOIN app_user AS u ON u.organisation = o.id AND u.username = login.username AND u.active
LEFT JOIN unit AS n ON n.organisation = o.id AND n.id = login.unit AND n.active
LEFT JOIN revoked_login AS r ON r.organisation = login.organisation AND r.jti = login.jti
LEFT JOIN attempt AS c ON c.organisation = o.id AND c.identifier = '' AND c.kind = 'codes'
    AND c.user_id = u.id AND c.account = login.account
LEFT JOIN attempt AS p ON p.organisation = o.id AND p.identifier = '' AND p.kind = 'pass_codes'
    AND p.user_id = u.id AND p.account = login.account
ORDER BY login.position
