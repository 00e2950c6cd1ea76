-- Access tokens for the demo's load, $2 of them; $1 tells the loads apart.
INSERT INTO access_token (organisation, id, number, life_cycle_state, authentication_code)
SELECT 'ORG1', name, name, 'NOT_EFFECTIVE', name
FROM (SELECT $1::text || '-' || i AS name FROM generate_series(1, $2::integer) AS i) AS load
