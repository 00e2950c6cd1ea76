-- Those of these command ids that were applied before, and the digests of their requests.
SELECT r.command_id, r.digest, r.organisation, r.access_token_id
FROM unnest($1::text[], $2::uuid[]) AS asked (organisation, command_key)
JOIN command_record AS r USING (organisation, command_key)
WHERE r.version IS NOT NULL
