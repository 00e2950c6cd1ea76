-- The rule of 0002_imported_anew beside the older one, for new transitions only: nothing is read.
ALTER TABLE transition ADD CONSTRAINT transition_rule_anew CHECK (
    CASE cause
        WHEN 'API' THEN coalesce(from_state, '') = 'NOT_EFFECTIVE' AND to_state = 'EFFECTIVE'
            AND user_id IS NOT NULL AND unit_id IS NOT NULL AND command_id IS NOT NULL
        WHEN 'IMPORT' THEN from_state IS NULL AND user_id IS NULL
        ELSE false
    END) NOT VALID
