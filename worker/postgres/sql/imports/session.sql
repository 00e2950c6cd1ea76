-- Each statement is planned for the chunk at hand and for tables as large as they are by now; and what a chunk names is
-- looked up by key, however small a table was when Postgres planned the checks of its foreign keys.
SELECT set_config('plan_cache_mode', 'force_custom_plan', false), set_config('enable_seqscan', 'off', false)
