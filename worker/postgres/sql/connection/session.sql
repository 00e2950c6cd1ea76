-- The values in this session of the settings with these names ($1).
SELECT name, current_setting(name) AS value FROM unnest($1::text[]) AS name
