-- The first statement of every batch: locks the lane, proves that it is still ours and where we left it, and moves it on.
-- next_offset never goes back: where offsets were set back by hand, the record of commands answers up to it. The last
-- record that was decided is the one before it, unless there are only markers ($6 is NULL).
UPDATE lane SET
    first_offset = $3,
    next_offset = greatest(next_offset, $4),
    last_offset = CASE WHEN $4 > next_offset AND $6::bigint IS NOT NULL THEN $4 - 1 ELSE last_offset END,
    last_timestamp = CASE WHEN $4 > next_offset AND $6::bigint IS NOT NULL THEN $6 ELSE last_timestamp END
WHERE id = $1 AND owner = $2 AND next_offset = $5
RETURNING chain_sequence, chain_hash, next_offset
