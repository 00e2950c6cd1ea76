-- The access tokens of accounts ($2), or of participants ($3) where they belong to no account. One of somebody else's
-- account stays, whoever collects its rewards. Locks nothing.
SELECT id, number, authentication_code, identifier, card_masked_number
FROM access_token
WHERE organisation = $1
    AND (accounts_receivable = ANY ($2::text[]) OR (accounts_receivable IS NULL AND rewards_participant = ANY ($3::text[])))
ORDER BY id
