-- the lane of imports is not the worker's to write
-- depends: 0010_no_forged_facts

-- migrate: apply

-- Apart from the rule for facts: whoever locked both tables, in another order than lanes do, would wait for lanes that
-- wait for it.
CREATE FUNCTION refuse_lane_of_imports() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'the lane of imports is refused: % is for whoever owns the table', TG_OP
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'lane_not_of_imports';
END
$$;

-- The condition is tested without calling the function, so the rule costs a lane of a partition nothing.
CREATE TRIGGER lane_not_of_imports BEFORE INSERT OR UPDATE ON lane
    FOR EACH ROW WHEN (NEW.cluster = '') EXECUTE FUNCTION refuse_lane_of_imports();

-- migrate: rollback

DROP TRIGGER lane_not_of_imports ON lane;
DROP FUNCTION refuse_lane_of_imports();
