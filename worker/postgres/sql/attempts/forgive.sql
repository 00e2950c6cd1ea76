-- End series of an organisation ($1): of a user ($2), of an identifier's digest ($3), or of both if both are given.
UPDATE attempt SET forgiven = failed
WHERE organisation = $1 AND ($2::text IS NULL OR user_id = $2) AND ($3::bytea IS NULL OR identifier = $3)
    AND failures > 0
