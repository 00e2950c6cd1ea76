INSERT INTO app_user (organisation, id, username, person_name, email, unit, active, rights)
SELECT organisation, id, username, person_name, email, unit, active, rights
FROM json_populate_recordset(NULL::app_user, $1::text::json)
ON CONFLICT (organisation, id) DO UPDATE SET username = excluded.username, person_name = excluded.person_name,
    email = excluded.email, unit = excluded.unit, active = excluded.active, rights = excluded.rights
