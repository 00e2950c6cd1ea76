-- A user that an access token mentions. A line of its own says more, before or after this one.
INSERT INTO app_user (organisation, id, username, person_name, email)
SELECT organisation, id, username, person_name, email
FROM pg_temp.staged_mentioned_user
ON CONFLICT (organisation, id) DO NOTHING
