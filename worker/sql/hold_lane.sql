-- The first statement of every batch: locks the lane as its update will, and proves that it is still ours and where we
-- left it. It looks where the last version was written ($4, or NULL): by its key, each batch would step over every
-- version that a long snapshot keeps, so the key is only for a row that somebody else has updated. This writes no
-- version.
WITH there AS (
    SELECT ctid AS place, chain_sequence, chain_hash FROM lane
    WHERE ctid = $4 AND id = $1 AND owner = $2 AND next_offset = $3
    FOR NO KEY UPDATE
), found AS (
    SELECT ctid AS place, chain_sequence, chain_hash FROM lane
    WHERE NOT EXISTS (SELECT FROM there) AND id = $1 AND owner = $2 AND next_offset = $3
    FOR NO KEY UPDATE
)
SELECT * FROM there UNION ALL SELECT * FROM found
