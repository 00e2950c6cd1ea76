-- Every decision is published: a worker that finds no offset of the group any more has nothing to publish again.
UPDATE lane SET first_offset = next_offset
WHERE id = $1 AND owner = $2 AND next_offset = $3
RETURNING id
