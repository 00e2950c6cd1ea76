-- Reads all transitions, and lets every lane work meanwhile.
ALTER TABLE transition VALIDATE CONSTRAINT transition_rule_anew
