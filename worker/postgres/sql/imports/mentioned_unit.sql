-- A unit that an access token mentions. A line of its own says more, before or after this one.
INSERT INTO unit (organisation, id, name, group_name, community_name, alternative_code, description)
SELECT organisation, id, name, group_name, community_name, alternative_code, description
FROM pg_temp.staged_mentioned_unit
ON CONFLICT (organisation, id) DO NOTHING
