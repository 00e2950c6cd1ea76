-- The rights of a user ($1) beyond those that a worker needs: privileges on tables ($2, $3), on columns of tables ($4,
-- $5, $6), functions to call ($7), membership of the worker's role ($8), and to connect. Objects of extensions are
-- skipped.
WITH outside AS (
    SELECT n.oid FROM pg_namespace AS n
    WHERE n.nspname <> 'information_schema' AND NOT starts_with(n.nspname, 'pg_')
), needed AS (
    SELECT to_regclass(format('public.%I', name))::oid AS relation, privilege
    FROM unnest($2::text[], $3::text[]) AS t (name, privilege)
), needed_column AS (
    SELECT to_regclass(format('public.%I', name))::oid AS relation, attribute, privilege
    FROM unnest($4::text[], $5::text[], $6::text[]) AS t (name, attribute, privilege)
), relation AS (
    SELECT c.oid, c.relkind FROM pg_class AS c JOIN outside ON outside.oid = c.relnamespace
    WHERE NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND classid = 'pg_class'::regclass AND deptype = 'e')
)
SELECT attribute AS surplus, 0 AS rank FROM (
    SELECT unnest(ARRAY[
        CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
        CASE WHEN rolcreatedb THEN 'CREATEDB' END, CASE WHEN rolreplication THEN 'REPLICATION' END,
        CASE WHEN rolbypassrls THEN 'BYPASSRLS' END
    ]) AS attribute FROM pg_roles WHERE rolname = $1
) AS has WHERE attribute IS NOT NULL
UNION ALL
SELECT format('the rights of %I', other.rolname), 1
FROM pg_roles AS other, pg_roles AS mine
WHERE mine.rolname = $1 AND NOT mine.rolsuper AND other.rolname NOT IN ($1, $8)
    AND pg_has_role(mine.oid, other.oid, 'MEMBER')
UNION ALL
SELECT privilege || ' on the database', 2 FROM unnest('{CREATE,TEMPORARY}'::text[]) AS p (privilege)
WHERE has_database_privilege($1::name, current_database(), privilege)
UNION ALL
SELECT 'CONNECT of PUBLIC to the database', 2
FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) AS granted
WHERE datname = current_database() AND granted.grantee = 0 AND granted.privilege_type = 'CONNECT'
UNION ALL
SELECT format('CREATE on schema %I', nspname), 3 FROM pg_namespace JOIN outside USING (oid)
WHERE has_schema_privilege($1::name, pg_namespace.oid, 'CREATE')
UNION ALL
SELECT format('%s on %s', privilege, relation.oid::regclass), 4
FROM relation, unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS p (privilege)
WHERE relation.relkind IN ('r', 'p', 'v', 'm', 'f') AND has_table_privilege($1::name, relation.oid, privilege)
    AND NOT EXISTS (
        SELECT FROM needed WHERE needed.relation = relation.oid AND needed.privilege = p.privilege
    )
UNION ALL
SELECT format('%s on %s.%I', privilege, relation.oid::regclass, attname), 5
FROM relation
JOIN pg_attribute AS a ON a.attrelid = relation.oid AND a.attnum > 0 AND NOT a.attisdropped
CROSS JOIN unnest('{SELECT,INSERT,UPDATE,REFERENCES}'::text[]) AS p (privilege)
WHERE relation.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT has_table_privilege($1::name, relation.oid, privilege)
    AND has_column_privilege($1::name, relation.oid, attnum, privilege)
    AND NOT EXISTS (
        SELECT FROM needed_column AS needed
        WHERE needed.relation = relation.oid AND needed.attribute = attname AND needed.privilege = p.privilege
    )
UNION ALL
SELECT format('%s on sequence %s', privilege, relation.oid::regclass), 6
FROM relation, unnest('{USAGE,SELECT,UPDATE}'::text[]) AS p (privilege)
WHERE relation.relkind = 'S' AND has_sequence_privilege($1::name, relation.oid, privilege)
UNION ALL
SELECT format('EXECUTE on %s', f.oid::regprocedure), 7
FROM pg_proc AS f JOIN outside ON outside.oid = f.pronamespace
WHERE has_function_privilege($1::name, f.oid, 'EXECUTE') AND f.oid NOT IN (SELECT unnest($7::text[])::regprocedure::oid)
    AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = f.oid AND classid = 'pg_proc'::regclass AND deptype = 'e')
ORDER BY rank, surplus
