-- The first start of a lane: nothing was decided before this offset.
UPDATE lane SET first_offset = $3, next_offset = $3
WHERE id = $1 AND owner = $2 AND next_offset IS NULL
RETURNING id
