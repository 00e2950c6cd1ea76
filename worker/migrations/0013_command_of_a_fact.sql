-- a fact says where its command stood, and no longer what its sender called it
-- depends: 0012_nothing_of_public

-- migrate: apply

-- Where the lane's log has the command: by this the record of a command is found, and only as long as it is kept. Facts
-- from before have none.
ALTER TABLE transition ADD COLUMN record_offset bigint;

-- As in 0010, and of anybody but the owner a fact names the record of its command.
CREATE OR REPLACE FUNCTION refuse_forged_facts() RETURNS trigger LANGUAGE plpgsql AS $$
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
        min(sequence) AS first, max(sequence) AS last, min(occurred_at) AS at, max(occurred_at) AS last_at,
        count(record_offset) AS commands
    INTO made FROM new_facts;
    IF made.facts = 0 THEN
        RETURN NULL;
    END IF;
    SELECT cluster, chain_sequence INTO home FROM lane WHERE id = made.lane;
    SELECT occurred_at INTO former FROM transition WHERE lane = made.lane AND sequence = made.first - 1;
    why := CASE
        WHEN made.cause <> 'API' OR made.last_cause <> 'API' THEN 'they are not of commands'
        WHEN made.commands <> made.facts THEN 'they do not each say where a command stood'
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

-- migrate: rollback

CREATE OR REPLACE FUNCTION refuse_forged_facts() RETURNS trigger LANGUAGE plpgsql AS $$
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

ALTER TABLE transition DROP COLUMN record_offset;
