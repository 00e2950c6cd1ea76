INSERT INTO revoked_login (organisation, jti)
SELECT organisation, jti FROM json_populate_recordset(NULL::revoked_login, $1::text::json)
ON CONFLICT DO NOTHING
