-- The log has lost commands before they were answered: write that down and order the group to go on behind them, at
-- once.
WITH passed AS (
    UPDATE lane SET first_offset = $4, next_offset = greatest(next_offset, $4), ordered_offset = $4
    WHERE id = $1 AND owner = $2
    RETURNING id
)
INSERT INTO command_loss (lane, begin_offset, end_offset, decided_end, noticed_at)
SELECT id, $3, $4, $5, $6 FROM passed
RETURNING lane
