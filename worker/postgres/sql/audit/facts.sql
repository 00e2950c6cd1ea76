-- The transitions that published events name, as they stand.
SELECT transition.lane, transition.sequence, transition.hash
FROM unnest($1::integer[], $2::bigint[]) AS named (lane, sequence)
JOIN transition USING (lane, sequence)
