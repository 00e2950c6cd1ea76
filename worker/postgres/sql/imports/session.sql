-- Each statement is planned for the chunk at hand and for the present sizes of the tables. The rows that a chunk names
-- are looked up by key, however small a table was when Postgres planned the checks of its foreign keys.
SELECT set_config('plan_cache_mode', 'force_custom_plan', false), set_config('enable_seqscan', 'off', false)
