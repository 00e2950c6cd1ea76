-- The lane of imports goes on behind sequence $2, whose hash is $3, and announces nothing up to there.
UPDATE lane
SET first_offset = greatest(first_offset, $2), next_offset = greatest(next_offset, $2),
    chain_hash = CASE WHEN chain_sequence < $2 THEN $3 ELSE chain_hash END,
    chain_sequence = greatest(chain_sequence, $2)
WHERE id = $1
