INSERT INTO revoked_login (organisation, jti)
SELECT organisation, jti FROM pg_temp.staged_revoked_login
ON CONFLICT DO NOTHING
