-- The group's offset is where it was ordered to be.
UPDATE lane SET ordered_offset = NULL WHERE id = $1 AND owner = $2
RETURNING id
