-- Those of these rights that a user ($1) lacks: privileges on tables ($2, $3), on columns of tables ($4, $5, $6), and
-- functions to call ($7).
SELECT needed.privilege || ' on ' || needed.name AS lacking
FROM unnest($2::text[], $3::text[]) AS needed (name, privilege)
WHERE NOT has_table_privilege($1::name, needed.name, needed.privilege)
UNION ALL
SELECT needed.privilege || ' on ' || needed.name || '.' || needed.attribute
FROM unnest($4::text[], $5::text[], $6::text[]) AS needed (name, attribute, privilege)
WHERE NOT has_column_privilege($1::name, needed.name, needed.attribute, needed.privilege)
UNION ALL
SELECT format('EXECUTE on %s', called::regprocedure)
FROM unnest($7::text[]) AS t (called)
WHERE NOT has_function_privilege($1::name, called, 'EXECUTE')
