-- the worker's role writes facts of commands only, in lanes of partitions, and in the order of time
-- depends: 0009_attempts

-- migrate: apply

-- Whoever owns the table, as imports do, may write what it likes. Of anybody else one statement's facts are of commands,
-- of one lane that is no import's and goes on where its row says, of one moment, no earlier than the one before and near
-- the clock: further back, or ahead, nobody is. A clock that was set back goes on where it was.
CREATE FUNCTION refuse_forged_facts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    made record;
    home record;
    former timestamptz;
    why text;
BEGIN
    IF pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
        RETURN NULL;
    END IF;
    SELECT count(*) AS facts, min(cause) AS cause, max(cause) AS last_cause, min(lane) AS lane, max(lane) AS last_lane,
        min(sequence) AS first, max(sequence) AS last, min(occurred_at) AS at, max(occurred_at) AS last_at
    INTO made FROM new_facts;
    IF made.facts = 0 THEN
        RETURN NULL;
    END IF;
    SELECT cluster, chain_sequence INTO home FROM lane WHERE id = made.lane;
    SELECT occurred_at INTO former FROM transition WHERE lane = made.lane AND sequence = made.first - 1;
    why := CASE
        WHEN made.cause <> 'API' OR made.last_cause <> 'API' THEN 'they are not of commands'
        WHEN made.lane <> made.last_lane THEN 'they are of several lanes'
        WHEN home.cluster IS NULL THEN 'there is no such lane'
        WHEN home.cluster = '' THEN 'the lane is that of imports'
        WHEN made.first <> home.chain_sequence + 1 OR made.last - made.first + 1 <> made.facts
            OR (former IS NULL AND made.first > 1) THEN 'they do not go on where the lane is'
        WHEN made.at <> made.last_at THEN 'they are of several moments'
        WHEN made.at < former THEN 'they are earlier than the one before'
        WHEN made.at < clock_timestamp() - interval '5 minutes'
            OR made.at > greatest(former, clock_timestamp() + interval '1 minute') THEN 'they are not of now'
    END;
    IF why IS NOT NULL THEN
        RAISE EXCEPTION 'facts are refused: %', why
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'transition_not_forged';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER transition_not_forged AFTER INSERT ON transition
    REFERENCING NEW TABLE AS new_facts FOR EACH STATEMENT EXECUTE FUNCTION refuse_forged_facts();

-- migrate: rollback

DROP TRIGGER transition_not_forged ON transition;
DROP FUNCTION refuse_forged_facts();
