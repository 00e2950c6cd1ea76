-- The accounts that a contact owns, and their participants in the rewards programme.
SELECT a.id AS account, r.id AS participant
FROM accounts_receivable AS a
LEFT JOIN rewards_participant AS r ON r.organisation = a.organisation AND r.accounts_receivable = a.id
WHERE a.organisation = $1 AND a.account_owner = $2
