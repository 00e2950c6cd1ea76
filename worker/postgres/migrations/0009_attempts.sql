-- guesses are counted, and the record says who made them
-- depends: 0008_lost_commands

-- migrate: apply

-- Failures by caller (identifier is empty) and by caller and identifier, of which this has a keyed digest; in a row are
-- those that came after the last success. Whose account is empty is no consumer application's login.
CREATE TABLE attempt (
    organisation text COLLATE "C" NOT NULL,
    identifier bytea NOT NULL,
    kind text NOT NULL CHECK (kind IN ('codes', 'pass_codes', 'identifier')),
    user_id text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL,
    failed bigint NOT NULL,
    forgiven bigint,
    failures bigint NOT NULL GENERATED ALWAYS AS (failed - coalesce(forgiven, 0)) STORED,
    first_at timestamptz NOT NULL DEFAULT now(),
    last_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organisation, identifier, kind, user_id, account),
    CHECK (0 <= failed AND coalesce(forgiven, 0) BETWEEN 0 AND failed),
    CHECK ((kind = 'identifier') = (identifier <> ''))
) WITH (fillfactor = 50);

-- Who was refused for its credentials. The digest of such a record is the keyed one of what it named.
ALTER TABLE command_record ADD COLUMN user_id text COLLATE "C";

-- migrate: rollback

ALTER TABLE command_record DROP COLUMN user_id;
DROP TABLE attempt;
