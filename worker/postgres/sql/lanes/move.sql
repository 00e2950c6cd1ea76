-- The last update of every batch on its lane, which its first statement has locked at its address ($7): the offsets,
-- and the head of its chain. next_offset never goes back: if offsets were set back by hand, the record of commands
-- answers up to it. The last record decided is the one before it, unless only markers are there ($6, its timestamp, is
-- NULL).
UPDATE lane SET
    first_offset = $2,
    next_offset = greatest(next_offset, $3),
    chain_sequence = $4,
    chain_hash = $5,
    last_offset = CASE WHEN $3 > next_offset AND $6::bigint IS NOT NULL THEN $3 - 1 ELSE last_offset END,
    last_timestamp = CASE WHEN $3 > next_offset AND $6::bigint IS NOT NULL THEN $6 ELSE last_timestamp END
WHERE id = $1 AND ctid = $7
RETURNING next_offset, ctid AS place
