INSERT INTO accounts_receivable AS a (organisation, id, number, name, life_cycle_state, account_owner)
SELECT organisation, id, number, name, life_cycle_state, account_owner
FROM pg_temp.staged_accounts_receivable
ON CONFLICT (organisation, id) DO UPDATE SET number = excluded.number, name = excluded.name,
    life_cycle_state = excluded.life_cycle_state, account_owner = excluded.account_owner
WHERE a IS DISTINCT FROM excluded
