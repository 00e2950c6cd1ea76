INSERT INTO classification AS c (organisation, id, name, alternative_code)
SELECT organisation, id, name, alternative_code FROM pg_temp.staged_classification
ON CONFLICT (organisation, id) DO UPDATE SET name = excluded.name, alternative_code = excluded.alternative_code
WHERE c IS DISTINCT FROM excluded
