-- The hash that the event after sequence $1 of the lane of imports is chained to, or will be; none if the lane has not
-- come so far. It is read from the event after, not from the event itself: a mended lane goes on after an event that it
-- lacks.
SELECT CASE WHEN lane.chain_sequence = $1 THEN lane.chain_hash ELSE (
    SELECT previous_hash FROM transition AS behind WHERE behind.lane = lane.id AND behind.sequence = $1 + 1
) END
FROM lane
WHERE cluster = '' AND topic = 'import'
