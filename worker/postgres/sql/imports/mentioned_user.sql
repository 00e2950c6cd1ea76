-- A user whom an access token mentions: a line of its own says more, whether it came before or comes after.
INSERT INTO app_user (organisation, id, username, person_name, email)
SELECT organisation, id, username, person_name, email
FROM pg_temp.staged_mentioned_user
ON CONFLICT (organisation, id) DO NOTHING
