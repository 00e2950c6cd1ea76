-- What callers have tried on identifiers ($2, keyed digests): of the callers themselves nothing is said by it.
DELETE FROM attempt WHERE organisation = $1 AND identifier = ANY ($2::bytea[])
