-- Whether that constraint has been proven; no row where it is not there.
SELECT convalidated FROM pg_constraint WHERE conrelid = 'transition'::regclass AND conname = 'transition_rule_anew'
