-- Those of the access tokens $2 that still belong to the accounts $3 or the participants $4, locked in the order in
-- which every lane locks them. By key, so that no lane waits for a search.
SELECT id
FROM access_token
WHERE organisation = $1 AND id = ANY ($2::text[])
    AND (accounts_receivable = ANY ($3::text[]) OR (accounts_receivable IS NULL AND rewards_participant = ANY ($4::text[])))
ORDER BY id
FOR NO KEY UPDATE
