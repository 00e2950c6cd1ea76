INSERT INTO organisation AS o (id, name, active)
SELECT id, name, active FROM json_populate_recordset(NULL::organisation, $1::text::json)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, active = excluded.active
