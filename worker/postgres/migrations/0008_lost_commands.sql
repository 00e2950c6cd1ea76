-- what the log has lost before it was answered is kept until a person has seen it
-- depends: 0007_transition_of_a_command

-- migrate: apply

-- Offsets from begin_offset up to, and without, end_offset; those below decided_end were decided, and nobody was told.
-- Of their transitions, events are published all the same: settled, once that is so.
CREATE TABLE command_loss (
    lane integer NOT NULL,
    begin_offset bigint NOT NULL,
    end_offset bigint NOT NULL,
    decided_end bigint NOT NULL,
    noticed_at timestamptz NOT NULL,
    settled boolean NOT NULL DEFAULT false,
    acknowledged_at timestamptz,
    PRIMARY KEY (lane, begin_offset, noticed_at),
    CHECK (begin_offset < end_offset AND decided_end <= end_offset)
);

-- migrate: rollback

DROP TABLE command_loss;
