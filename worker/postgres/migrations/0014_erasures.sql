-- what an erasure has found in topics is remembered until it is gone
-- depends: 0013_command_of_a_fact

-- migrate: apply

-- Once a customer is erased, nothing here tells any more what topics hold of it. Places are topics, partitions, offsets
-- and moments, and nothing of a person; the worker's role has no business here.
CREATE TABLE erasure (
    organisation text COLLATE "C" NOT NULL,
    contact text COLLATE "C" NOT NULL,
    erased_at timestamptz NOT NULL DEFAULT now(),
    places json NOT NULL CHECK (json_typeof(places) = 'array'),
    PRIMARY KEY (organisation, contact)
);

-- migrate: rollback

DROP TABLE erasure;
