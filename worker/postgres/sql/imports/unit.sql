INSERT INTO unit (organisation, id, name, group_name, community_name, alternative_code, description, active)
SELECT organisation, id, name, group_name, community_name, alternative_code, description, active
FROM pg_temp.staged_unit
ON CONFLICT (organisation, id) DO UPDATE SET name = excluded.name, group_name = excluded.group_name,
    community_name = excluded.community_name, alternative_code = excluded.alternative_code,
    description = excluded.description, active = excluded.active
