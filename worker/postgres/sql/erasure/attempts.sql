-- Delete what callers have tried on identifiers ($2, keyed digests); it tells nothing of the callers themselves.
DELETE FROM attempt WHERE organisation = $1 AND identifier = ANY ($2::bytea[])
