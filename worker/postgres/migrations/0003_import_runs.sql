-- an import that was stopped goes on where it was
-- depends: 0002_imported_anew

-- migrate: apply

-- One row per import under way, written with every chunk: how far it has come, in the file of that number (from 0), to
-- the line and the byte where the next one begins; and which events of the import lane are of access tokens it made.
CREATE TABLE import_run (
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    touched_at timestamptz NOT NULL,
    file integer NOT NULL DEFAULT 0,
    line bigint NOT NULL DEFAULT 0,
    position bigint NOT NULL DEFAULT 0,
    read bigint NOT NULL DEFAULT 0,
    loaded bigint NOT NULL DEFAULT 0,
    made int8multirange NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);

-- What is wrong with the lines that were skipped, never what they say.
CREATE TABLE import_bad_line (
    digest bytea NOT NULL REFERENCES import_run ON DELETE CASCADE,
    file integer NOT NULL,
    line bigint NOT NULL,
    what text NOT NULL,
    PRIMARY KEY (digest, file, line)
);

-- migrate: rollback

DROP TABLE import_bad_line, import_run;
