-- Store the topic's id: at a lane's first start on a broker that tells ids, or the first since an operator has decided.
UPDATE lane SET topic_id = $3
WHERE id = $1 AND owner = $2
RETURNING id
