-- Which of these a user ($1) may not do: privileges on tables ($2, $3), and on columns of tables ($4, $5, $6).
SELECT needed.privilege || ' on ' || needed.name AS lacking
FROM unnest($2::text[], $3::text[]) AS needed (name, privilege)
WHERE NOT has_table_privilege($1::name, needed.name, needed.privilege)
UNION ALL
SELECT needed.privilege || ' on ' || needed.name || '.' || needed.attribute
FROM unnest($4::text[], $5::text[], $6::text[]) AS needed (name, attribute, privilege)
WHERE NOT has_column_privilege($1::name, needed.name, needed.attribute, needed.privilege)
