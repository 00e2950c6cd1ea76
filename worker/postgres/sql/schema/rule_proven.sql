-- Reads all transitions, and lets everybody work meanwhile.
ALTER TABLE transition VALIDATE CONSTRAINT transition_rule_anew
