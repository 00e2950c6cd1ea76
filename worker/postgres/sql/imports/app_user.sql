INSERT INTO app_user (organisation, id, username, person_name, email, unit, active, rights)
SELECT organisation, id, username, person_name, email, unit, active, rights
FROM pg_temp.staged_app_user
ON CONFLICT (organisation, id) DO UPDATE SET username = excluded.username, person_name = excluded.person_name,
    email = excluded.email, unit = excluded.unit, active = excluded.active, rights = excluded.rights
