-- What the migrations grant the worker's role, and what tells it which of them were applied: all of it once more. Nobody
-- has anything by being anybody: who is not the database's owner can only try, and is warned.
DO $$
BEGIN
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I', current_database(), current_user);
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO effective_worker', current_database());
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
END
$$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO effective_worker;
GRANT SELECT ON organisation, unit, app_user, revoked_login, contact, accounts_receivable, rewards_participant,
    classification, access_token, lane, transition, command_record, command_loss, attempt,
    _pogo_migration, _pogo_version TO effective_worker;
GRANT INSERT ON transition, command_record, command_loss, lane TO effective_worker;
GRANT UPDATE (settled) ON command_loss TO effective_worker;
GRANT INSERT, DELETE, UPDATE (failed, forgiven, last_at) ON attempt TO effective_worker;
GRANT DELETE ON command_record TO effective_worker;
GRANT UPDATE (life_cycle_state, version, updated_date, updated_by_user, updated_by_unit) ON access_token TO effective_worker;
GRANT UPDATE (owner, owned_since, first_offset, next_offset, chain_sequence, chain_hash, ordered_offset, topic_id,
    last_offset, last_timestamp, blocked, blocked_since) ON lane TO effective_worker;
