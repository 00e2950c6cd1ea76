INSERT INTO rewards_participant AS r (organisation, id, number, life_cycle_state, accounts_receivable)
SELECT organisation, id, number, life_cycle_state, accounts_receivable
FROM pg_temp.staged_rewards_participant
ON CONFLICT (organisation, id) DO UPDATE SET number = excluded.number, life_cycle_state = excluded.life_cycle_state,
    accounts_receivable = excluded.accounts_receivable
WHERE r IS DISTINCT FROM excluded
