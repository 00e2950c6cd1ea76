-- The accounts that the access tokens of a batch and their rewards participants name, each once: many tokens may be of
-- one account, and a participant's account is most often the token's own.
SELECT account.organisation, account.id, account.number, account.name, account.life_cycle_state
    , owner.body::text AS account_owner
FROM unnest($1::text[], $2::text[]) AS named (organisation, id)
JOIN accounts_receivable AS account USING (organisation, id)
LEFT JOIN contact AS owner ON owner.organisation = account.organisation AND owner.id = account.account_owner
