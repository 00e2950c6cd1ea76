-- Forget the series whose last failure is older than $1.
DELETE FROM attempt WHERE last_at < now() - $1::interval
