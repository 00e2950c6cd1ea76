-- Block the lane: it does not start again, whatever its log is like later, before an operator decides (worker.lanes).
UPDATE lane SET blocked = $3, blocked_since = coalesce(blocked_since, $4)
WHERE id = $1 AND owner = $2
RETURNING id
