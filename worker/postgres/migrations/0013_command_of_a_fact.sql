-- a fact says where its command stood, and no longer what its sender called it
-- depends: 0012_nothing_of_public

-- migrate: apply

-- Where the lane's log has the command: by this the record of a command is found, and only as long as it is kept. Facts
-- from before have none, and of imports no fact has one.
ALTER TABLE transition ADD COLUMN record_offset bigint;

-- Whoever owns the table may write what it likes, as in 0010.
CREATE FUNCTION refuse_unplaced_fact() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
        RAISE EXCEPTION 'facts are refused: they do not say where their commands stood'
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'transition_not_forged';
    END IF;
    RETURN NULL;
END
$$;
REVOKE EXECUTE ON FUNCTION refuse_unplaced_fact FROM PUBLIC;

-- The condition is tested without calling the function. Afterwards: a trigger before each row would keep COPY from
-- writing many rows at once.
CREATE TRIGGER transition_placed AFTER INSERT ON transition
    FOR EACH ROW WHEN (NEW.cause = 'API' AND NEW.record_offset IS NULL) EXECUTE FUNCTION refuse_unplaced_fact();

-- migrate: rollback

DROP TRIGGER transition_placed ON transition;
DROP FUNCTION refuse_unplaced_fact();
ALTER TABLE transition DROP COLUMN record_offset;
