-- The first statement of every batch: locks the lane as its update will, and proves that it is still ours and
-- unchanged. It first reads where the last version was written ($4, or NULL): by its key, each batch would step over
-- every version that a long snapshot keeps, so the key is only for a row that another session has updated. This writes
-- no version. The moment is that of the batch's facts: of one clock for all workers, and never before the last fact.
WITH there AS (
    SELECT ctid AS place, id, chain_sequence, chain_hash FROM lane
    WHERE ctid = $4 AND id = $1 AND owner = $2 AND next_offset = $3
    FOR NO KEY UPDATE
), found AS (
    SELECT ctid AS place, id, chain_sequence, chain_hash FROM lane
    WHERE NOT EXISTS (SELECT FROM there) AND id = $1 AND owner = $2 AND next_offset = $3
    FOR NO KEY UPDATE
), held AS (
    SELECT * FROM there UNION ALL SELECT * FROM found
)
SELECT place, chain_sequence, chain_hash, greatest(statement_timestamp(), (
    SELECT occurred_at FROM transition WHERE lane = held.id AND sequence = held.chain_sequence
)) AS moment
FROM held
