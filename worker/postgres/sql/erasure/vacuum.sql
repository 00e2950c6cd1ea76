-- Erased data are still in dead rows, in index entries and in the planner's statistics.
VACUUM (ANALYZE, INDEX_CLEANUP ON) contact, accounts_receivable, rewards_participant, access_token, command_record,
    attempt
