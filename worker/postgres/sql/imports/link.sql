-- The hash to which what comes behind sequence $1 of the lane of imports is chained, or will be; none if the lane has not
-- come so far. By what comes behind and not by the event itself: a lane that was mended goes on behind one it has not.
SELECT CASE WHEN lane.chain_sequence = $1 THEN lane.chain_hash ELSE (
    SELECT previous_hash FROM transition AS behind WHERE behind.lane = lane.id AND behind.sequence = $1 + 1
) END
FROM lane
WHERE cluster = '' AND topic = 'import'
