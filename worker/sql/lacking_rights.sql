-- Which of these a user ($5) may not do: privileges on tables ($1, $2), and updates of columns ($3, $4).
SELECT needed.privilege || ' on ' || needed.name AS lacking
FROM unnest($1::text[], $2::text[]) AS needed (name, privilege)
WHERE NOT has_table_privilege($5::name, needed.name, needed.privilege)
UNION ALL
SELECT 'UPDATE on ' || needed.name || '.' || needed.changed
FROM unnest($3::text[], $4::text[]) AS needed (name, changed)
WHERE NOT has_column_privilege($5::name, needed.name, needed.changed, 'UPDATE')
