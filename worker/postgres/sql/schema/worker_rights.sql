-- The statements, in their order, that make the rights of a role ($1) those of a worker, whatever they were: privileges
-- on tables ($2, $3), on columns of tables ($4, $5, $6), and functions to call ($7). PUBLIC has no rights: a user that
-- does not own the database can only try to revoke them, and is warned.
WITH on_table AS (
    SELECT name, string_agg(privilege, ', ' ORDER BY privilege) AS privileges
    FROM unnest($2::text[], $3::text[]) AS t (name, privilege)
    GROUP BY name
), on_column AS (
    SELECT name, privilege, string_agg(quote_ident(attribute), ', ') AS attributes
    FROM unnest($4::text[], $5::text[], $6::text[]) AS t (name, attribute, privilege)
    GROUP BY name, privilege
)
SELECT said FROM (
    SELECT 0 AS step, format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I', current_database(), current_user) AS said
    UNION ALL
    SELECT 1, format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), $1::text)
    UNION ALL
    SELECT 2, format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database())
    UNION ALL
    SELECT 3, 'REVOKE CREATE ON SCHEMA public FROM PUBLIC'
    UNION ALL
    SELECT 4, format('GRANT USAGE ON SCHEMA public TO %I', $1::text)
    UNION ALL
    SELECT 5, format('REVOKE ALL ON public.%I FROM %I', name, $1::text)
    FROM (SELECT name FROM on_table UNION SELECT name FROM on_column) AS concerned
    UNION ALL
    SELECT 6, format('GRANT %s ON public.%I TO %I', privileges, name, $1::text) FROM on_table
    UNION ALL
    SELECT 7, format('GRANT %s (%s) ON public.%I TO %I', privilege, attributes, name, $1::text) FROM on_column
    UNION ALL
    SELECT 8, format('GRANT EXECUTE ON FUNCTION %s TO %I', called, $1::text) FROM unnest($7::text[]) AS t (called)
) AS statements
ORDER BY step, said
