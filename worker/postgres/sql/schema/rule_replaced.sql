-- Both at once: to Postgres this is one transaction.
ALTER TABLE transition DROP CONSTRAINT transition_rule_check;
ALTER TABLE transition RENAME CONSTRAINT transition_rule_anew TO transition_rule_check
