-- The existence of a role ($2), and the membership of a user ($1) in it.
SELECT count(*) > 0 AS is_there, coalesce(bool_or(pg_has_role($1::name, oid, 'MEMBER')), false) AS is_member
FROM pg_roles
WHERE rolname = $2
