-- What has not changed is not written: many access tokens bring the same account.
INSERT INTO contact AS c (organisation, id, body)
SELECT organisation, id, body FROM json_populate_recordset(NULL::contact, $1::text::json)
ON CONFLICT (organisation, id) DO UPDATE SET body = excluded.body
WHERE c.body::text <> excluded.body::text
