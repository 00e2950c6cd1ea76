-- Let the lane of imports go on after sequence $2, whose hash is $3, and announce nothing up to there.
UPDATE lane
SET first_offset = greatest(first_offset, $2), next_offset = greatest(next_offset, $2),
    chain_hash = CASE WHEN chain_sequence < $2 THEN $3 ELSE chain_hash END,
    chain_sequence = greatest(chain_sequence, $2)
WHERE id = $1
