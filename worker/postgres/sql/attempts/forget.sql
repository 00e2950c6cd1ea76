-- Series whose last failure is older than $1 are forgotten.
DELETE FROM attempt WHERE last_at < now() - $1::interval
