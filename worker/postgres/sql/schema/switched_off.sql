-- The tables of the schema whose triggers do not all fire: what they refuse, and what foreign keys refuse, gets in.
SELECT tables.relname AS name
FROM pg_trigger AS rules
JOIN pg_class AS tables ON tables.oid = rules.tgrelid
WHERE tables.relnamespace = current_schema()::regnamespace AND rules.tgenabled NOT IN ('O', 'A')
GROUP BY tables.relname
ORDER BY tables.relname
