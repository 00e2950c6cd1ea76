-- The callers of a batch, in the order of the logins given: who they are, and what they may do, at this moment.
SELECT o.id IS NOT NULL AS organisation_known, u.id AS user_id, n.id AS unit_id,
    r.jti IS NOT NULL AS revoked, coalesce($5 = ANY (u.rights), false) AS allowed
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
    WITH ORDINALITY AS login (organisation, username, unit, jti, position)
LEFT JOIN organisation AS o ON o.id = login.organisation AND o.active
LEFT JOIN app_user AS u ON u.organisation = o.id AND u.username = login.username AND u.active
LEFT JOIN unit AS n ON n.organisation = o.id AND n.id = login.unit AND n.active
LEFT JOIN revoked_login AS r ON r.organisation = login.organisation AND r.jti = login.jti
ORDER BY login.position
