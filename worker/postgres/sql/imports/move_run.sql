-- $8 and $9: the first and the last event of the access tokens that were created.
UPDATE import_run
SET touched_at = $2, file = $3, line = $4, position = $5, read = read + $6, loaded = loaded + $7,
    made = made + CASE WHEN $8::bigint <= $9::bigint THEN int8multirange(int8range($8, $9, '[]')) ELSE '{}' END
WHERE digest = $1
