-- an access token that is imported anew goes on with its history
-- depends: 0001_the_journey

-- migrate: apply

-- Its first state is an event again, and what counts its events counts on.
ALTER TABLE transition DROP CONSTRAINT transition_rule_check, ADD CONSTRAINT transition_rule_check CHECK (
    CASE cause
        WHEN 'API' THEN coalesce(from_state, '') = 'NOT_EFFECTIVE' AND to_state = 'EFFECTIVE'
            AND user_id IS NOT NULL AND unit_id IS NOT NULL AND command_id IS NOT NULL
        WHEN 'IMPORT' THEN from_state IS NULL AND user_id IS NULL
        ELSE false
    END);

-- migrate: rollback

ALTER TABLE transition DROP CONSTRAINT transition_rule_check, ADD CONSTRAINT transition_rule_check CHECK (
    CASE cause
        WHEN 'API' THEN coalesce(from_state, '') = 'NOT_EFFECTIVE' AND to_state = 'EFFECTIVE'
            AND user_id IS NOT NULL AND unit_id IS NOT NULL AND command_id IS NOT NULL
        WHEN 'IMPORT' THEN from_state IS NULL AND user_id IS NULL AND version = 1
        ELSE false
    END) NOT VALID;
