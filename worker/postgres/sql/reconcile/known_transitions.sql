-- Those of these transitions that exist at all. ours: of one of the lanes $4.
SELECT t.organisation, t.access_token_id, t.version, t.lane = ANY ($4::integer[]) AS ours
FROM unnest($1::text[], $2::text[], $3::integer[]) AS asked (organisation, access_token_id, version)
JOIN transition AS t USING (organisation, access_token_id, version)
