-- The first start of a lane on a broker that tells of ids, or since a person has decided.
UPDATE lane SET topic_id = $3
WHERE id = $1 AND owner = $2
RETURNING id
