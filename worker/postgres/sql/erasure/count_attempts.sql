-- The number of series of attempts on identifiers ($2, keyed digests).
SELECT count(*) FROM attempt WHERE organisation = $1 AND identifier = ANY ($2::bytea[])
