-- NOT VALID: rows that are there met the narrower rule, and are not checked again.
ALTER TABLE transition DROP CONSTRAINT transition_rule_check, ADD CONSTRAINT transition_rule_check CHECK (
    CASE cause
        WHEN 'API' THEN coalesce(from_state, '') || ' ' || to_state
                IN ('NOT_EFFECTIVE EFFECTIVE', 'EFFECTIVE NOT_EFFECTIVE')
            AND user_id IS NOT NULL AND unit_id IS NOT NULL AND command_id IS NOT NULL
        WHEN 'IMPORT' THEN from_state IS NULL AND user_id IS NULL
        ELSE false
    END) NOT VALID;

CREATE OR REPLACE TRIGGER access_token_life_cycle BEFORE UPDATE OF life_cycle_state ON access_token
    FOR EACH ROW WHEN (NOT (OLD.life_cycle_state = NEW.life_cycle_state
        OR OLD.life_cycle_state || ' ' || NEW.life_cycle_state
            IN ('NOT_EFFECTIVE EFFECTIVE', 'EFFECTIVE NOT_EFFECTIVE')))
    EXECUTE FUNCTION refuse_transition();

CREATE OR REPLACE FUNCTION refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'access token % of % is % and may not become %',
        OLD.id, OLD.organisation, OLD.life_cycle_state, NEW.life_cycle_state
        USING ERRCODE = 'check_violation', CONSTRAINT = 'access_token_life_cycle_check';
END
$$;
