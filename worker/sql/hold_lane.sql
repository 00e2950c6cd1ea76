-- The first statement of every batch: locks the lane, proves that it is still ours and where we left it, and moves it on.
-- next_offset never goes back: where offsets were set back by hand, the record of commands answers up to it.
UPDATE lane SET first_offset = $3, next_offset = greatest(next_offset, $4)
WHERE id = $1 AND owner = $2 AND next_offset = $5
RETURNING chain_sequence, chain_hash, next_offset
