-- The series of guesses, the longest first: of an organisation ($1), a user ($2) and an identifier's digest ($3), if
-- they are given; with $4 also those that have ended. No more than $5.
SELECT organisation, identifier, kind, user_id, account, failures, failed, first_at, last_at
FROM attempt
WHERE ($1::text IS NULL OR organisation = $1) AND ($2::text IS NULL OR user_id = $2)
    AND ($3::bytea IS NULL OR identifier = $3) AND ($4::boolean OR failures > 0)
ORDER BY failures DESC, last_at DESC, organisation, identifier, kind, user_id, account
LIMIT $5
