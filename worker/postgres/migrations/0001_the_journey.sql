-- what the journey reads and writes
-- depends:

-- migrate: apply

-- Ids are opaque text, compared byte by byte, and unique within their organisation only: every key starts with it.

CREATE TABLE organisation (
    id text COLLATE "C" PRIMARY KEY CHECK (id <> ''),
    name text NOT NULL,
    active boolean NOT NULL DEFAULT true
);

CREATE TABLE unit (
    organisation text COLLATE "C" NOT NULL REFERENCES organisation,
    id text COLLATE "C" NOT NULL CHECK (id <> ''),
    name text,
    group_name text,
    community_name text,
    alternative_code text,
    description text,
    active boolean NOT NULL DEFAULT true,
    PRIMARY KEY (organisation, id)
);

CREATE TABLE app_user (
    organisation text COLLATE "C" NOT NULL REFERENCES organisation,
    id text COLLATE "C" NOT NULL CHECK (id <> ''),
    username text COLLATE "C" NOT NULL CHECK (username <> ''),
    person_name text,
    email text,
    unit text COLLATE "C",
    active boolean NOT NULL DEFAULT true,
    rights text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (organisation, id),
    CONSTRAINT app_user_username_key UNIQUE (organisation, username)
);

CREATE TABLE revoked_login (
    organisation text COLLATE "C" NOT NULL REFERENCES organisation,
    jti text COLLATE "C" NOT NULL CHECK (jti <> ''),
    PRIMARY KEY (organisation, jti)
);

-- An account owner is shown whole or not at all, so it is kept as the very object that is shown: one place to erase.
CREATE TABLE contact (
    organisation text COLLATE "C" NOT NULL REFERENCES organisation,
    id text COLLATE "C" NOT NULL CHECK (id <> ''),
    body json NOT NULL CHECK (json_typeof(body) = 'object'),
    PRIMARY KEY (organisation, id),
    CONSTRAINT contact_body_id_check CHECK (coalesce(body ->> 'id', '') = id)
);

CREATE TABLE accounts_receivable (
    organisation text COLLATE "C" NOT NULL REFERENCES organisation,
    id text COLLATE "C" NOT NULL CHECK (id <> ''),
    number text,
    name text,
    life_cycle_state text CHECK (life_cycle_state IN ('ACTIVE', 'SUSPENDED', 'TERMINATED')),
    account_owner text COLLATE "C",
    PRIMARY KEY (organisation, id),
    FOREIGN KEY (organisation, account_owner) REFERENCES contact
);

CREATE TABLE rewards_participant (
    organisation text COLLATE "C" NOT NULL REFERENCES organisation,
    id text COLLATE "C" NOT NULL CHECK (id <> ''),
    number text,
    life_cycle_state text CHECK (life_cycle_state IN ('EFFECTIVE', 'TERMINATED')),
    accounts_receivable text COLLATE "C",
    PRIMARY KEY (organisation, id),
    FOREIGN KEY (organisation, accounts_receivable) REFERENCES accounts_receivable
);

CREATE TABLE classification (
    organisation text COLLATE "C" NOT NULL REFERENCES organisation,
    id text COLLATE "C" NOT NULL CHECK (id <> ''),
    name text,
    alternative_code text,
    PRIMARY KEY (organisation, id)
);

-- The users and units of the log carry no foreign keys: they would be checked at every transition, and the one who
-- applies a transition was read in the same transaction. Nothing that a transition changes is indexed, and half of
-- each page is left free, so that the change stays on its page (HOT) even when all of a page change at once.
CREATE TABLE access_token (
    organisation text COLLATE "C" NOT NULL REFERENCES organisation,
    id text COLLATE "C" NOT NULL CHECK (id <> ''),
    number text COLLATE "C" NOT NULL CHECK (number <> ''),
    life_cycle_state text NOT NULL CHECK (life_cycle_state IN ('EFFECTIVE', 'NOT_EFFECTIVE', 'PENDING_VERIFICATION')),
    version integer NOT NULL DEFAULT 0 CHECK (version >= 0),
    authentication_code text COLLATE "C" CHECK (authentication_code <> ''),
    identifier text COLLATE "C" CHECK (identifier <> ''),
    pass_code_hash text CHECK (pass_code_hash LIKE '$argon2id$%'),
    card_masked_number text,
    card_last_4_digits text,
    verification_code text,
    verified_date timestamp(0),
    verified_by_user text COLLATE "C",
    udf_string_1 text,
    udf_string_2 text,
    udf_string_3 text,
    udf_string_4 text,
    udf_string_5 text,
    udf_string_6 text,
    udf_string_7 text,
    udf_string_8 text,
    udf_float_1 double precision CHECK (udf_float_1 BETWEEN '-1.7976931348623157e308' AND '1.7976931348623157e308'),
    udf_float_2 double precision CHECK (udf_float_2 BETWEEN '-1.7976931348623157e308' AND '1.7976931348623157e308'),
    udf_float_3 double precision CHECK (udf_float_3 BETWEEN '-1.7976931348623157e308' AND '1.7976931348623157e308'),
    udf_float_4 double precision CHECK (udf_float_4 BETWEEN '-1.7976931348623157e308' AND '1.7976931348623157e308'),
    udf_date_1 timestamp(0),
    udf_date_2 timestamp(0),
    udf_date_3 timestamp(0),
    udf_date_4 timestamp(0),
    classification text COLLATE "C",
    accounts_receivable text COLLATE "C",
    rewards_participant text COLLATE "C",
    created_date timestamp(0),
    updated_date timestamp(0),
    created_by_user text COLLATE "C",
    updated_by_user text COLLATE "C",
    created_by_unit text COLLATE "C",
    updated_by_unit text COLLATE "C",
    PRIMARY KEY (organisation, id),
    CONSTRAINT access_token_number_key UNIQUE (organisation, number),
    CONSTRAINT access_token_authentication_code_key UNIQUE (organisation, authentication_code),
    CONSTRAINT access_token_identifier_key UNIQUE (organisation, identifier),
    FOREIGN KEY (organisation, classification) REFERENCES classification,
    FOREIGN KEY (organisation, accounts_receivable) REFERENCES accounts_receivable,
    FOREIGN KEY (organisation, rewards_participant) REFERENCES rewards_participant
) WITH (fillfactor = 50);

-- One row per partition and consumer group: who works on it, what was decided last, and the head of its hash chain.
CREATE TABLE lane (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster text COLLATE "C" NOT NULL,
    consumer_group text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL CHECK (partition >= 0),
    owner uuid NOT NULL,
    owned_since timestamptz NOT NULL,
    first_offset bigint,
    next_offset bigint,
    chain_sequence bigint NOT NULL DEFAULT 0 CHECK (chain_sequence >= 0),
    chain_hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex') CHECK (octet_length(chain_hash) = 32),
    CONSTRAINT lane_coordinates_key UNIQUE (cluster, consumer_group, topic, partition),
    CHECK ((first_offset IS NULL) = (next_offset IS NULL)),
    CHECK (0 <= first_offset AND first_offset <= next_offset)
) WITH (fillfactor = 50);

-- No foreign keys: a history outlives its token, and the rows it names are locked by the statement that writes it.
CREATE TABLE transition (
    organisation text COLLATE "C" NOT NULL,
    access_token_id text COLLATE "C" NOT NULL,
    version integer NOT NULL CHECK (version >= 1),
    from_state text,
    to_state text NOT NULL,
    occurred_at timestamptz NOT NULL,
    user_id text,
    unit_id text,
    command_id text,
    cause text NOT NULL,
    lane integer NOT NULL,
    sequence bigint NOT NULL CHECK (sequence >= 1),
    previous_hash bytea NOT NULL CHECK (octet_length(previous_hash) = 32),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (organisation, access_token_id, version),
    CONSTRAINT transition_chain_key UNIQUE (lane, sequence),
    CONSTRAINT transition_rule_check CHECK (
        CASE cause
            WHEN 'API' THEN coalesce(from_state, '') = 'NOT_EFFECTIVE' AND to_state = 'EFFECTIVE'
                AND user_id IS NOT NULL AND unit_id IS NOT NULL AND command_id IS NOT NULL
            WHEN 'IMPORT' THEN from_state IS NULL AND user_id IS NULL AND version = 1
            ELSE false
        END)
);

-- What was decided, without the answer's data. Only an applied command (one with a version) binds its id.
-- No foreign key to the lane: the transaction that writes a record has locked the lane's row with its first statement.
CREATE TABLE command_record (
    lane integer NOT NULL,
    record_offset bigint NOT NULL CHECK (record_offset >= 0),
    record_timestamp bigint NOT NULL,
    organisation text COLLATE "C",
    command_key uuid NOT NULL,
    command_id text NOT NULL,
    digest bytea,
    status text NOT NULL,
    message text NOT NULL,
    replayed boolean NOT NULL,
    access_token_id text,
    version integer,
    fields integer NOT NULL,
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (lane, record_offset, record_timestamp),
    CHECK (version IS NULL OR (status = 'OK' AND NOT replayed)),
    CHECK (status <> 'OK' OR (organisation IS NOT NULL AND digest IS NOT NULL))
);

-- Every record is in exactly one of these: the applied ones for the recall by id, the others for `explain`. The key
-- comes first, against the rule: it alone tells two records apart, and a descent compares it at every step.
CREATE UNIQUE INDEX command_record_applied_key ON command_record (command_key, organisation) WHERE version IS NOT NULL;
CREATE INDEX command_record_other_idx ON command_record (command_key, organisation) WHERE version IS NULL;

CREATE FUNCTION refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'access token % of % is %: only a NOT_EFFECTIVE access token may become EFFECTIVE',
        OLD.id, OLD.organisation, OLD.life_cycle_state
        USING ERRCODE = 'check_violation', CONSTRAINT = 'access_token_life_cycle_check';
END
$$;

-- The condition is tested without calling the function, so the rule costs an honest transition nothing.
CREATE TRIGGER access_token_life_cycle BEFORE UPDATE OF life_cycle_state ON access_token
    FOR EACH ROW WHEN (NOT (OLD.life_cycle_state = NEW.life_cycle_state
        OR (OLD.life_cycle_state = 'NOT_EFFECTIVE' AND NEW.life_cycle_state = 'EFFECTIVE')))
    EXECUTE FUNCTION refuse_transition();

CREATE FUNCTION refuse_change_of_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'transitions are append-only: % is refused', TG_OP
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'transition_append_only';
END
$$;

CREATE TRIGGER transition_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transition
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();

-- migrate: rollback

DROP TABLE command_record, transition, lane, access_token, classification, rewards_participant, accounts_receivable,
    contact, revoked_login, app_user, unit, organisation;
DROP FUNCTION refuse_transition(), refuse_change_of_history();
