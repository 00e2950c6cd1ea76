-- The first statement of every batch: locks the lane as its update will, and proves that it is still ours and where we
-- left it. It writes no version of the row: while a snapshot is held for hours, each makes all later batches slower.
SELECT chain_sequence, chain_hash FROM lane
WHERE id = $1 AND owner = $2 AND next_offset = $3
FOR NO KEY UPDATE
