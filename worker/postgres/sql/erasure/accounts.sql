-- The accounts that a contact owns, and their participants in the rewards programme, with the data they still hold of
-- it.
SELECT a.id AS account, a.number, a.name, r.id AS participant, r.number AS participant_number
FROM accounts_receivable AS a
LEFT JOIN rewards_participant AS r ON r.organisation = a.organisation AND r.accounts_receivable = a.id
WHERE a.organisation = $1 AND a.account_owner = $2
