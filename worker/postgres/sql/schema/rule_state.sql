-- True if that constraint has been validated; no row if it does not exist.
SELECT convalidated FROM pg_constraint WHERE conrelid = 'transition'::regclass AND conname = 'transition_rule_anew'
