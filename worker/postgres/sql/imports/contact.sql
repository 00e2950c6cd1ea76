-- An unchanged contact is not written: many access tokens bring the same account.
INSERT INTO contact AS c (organisation, id, body)
SELECT organisation, id, body FROM pg_temp.staged_contact
ON CONFLICT (organisation, id) DO UPDATE SET body = excluded.body
WHERE c.body::text <> excluded.body::text
