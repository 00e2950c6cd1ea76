-- The lane does not start any more, whatever its log looks like later: a person must decide (worker.lanes).
UPDATE lane SET blocked = $3, blocked_since = coalesce(blocked_since, $4)
WHERE id = $1 AND owner = $2
RETURNING id
