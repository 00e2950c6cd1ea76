INSERT INTO organisation AS o (id, name, active)
SELECT id, name, active FROM pg_temp.staged_organisation
ON CONFLICT (id) DO UPDATE SET name = excluded.name, active = excluded.active
