-- The last word of every batch on its lane, which its first statement has locked: how far it is, and the head of its
-- chain. next_offset never goes back: where offsets were set back by hand, the record of commands answers up to it.
UPDATE lane SET first_offset = $2, next_offset = greatest(next_offset, $3), chain_sequence = $4, chain_hash = $5
WHERE id = $1
RETURNING next_offset
