-- The tables that hold the rows of a chunk before they are loaded: the columns that they give, without any constraint,
-- so that Postgres refuses a row in the table that it is for. A commit empties them.
DO $$
BEGIN
    CREATE TEMPORARY TABLE staged_organisation ON COMMIT DELETE ROWS AS
        SELECT id, name, active FROM organisation WITH NO DATA;
    CREATE TEMPORARY TABLE staged_unit ON COMMIT DELETE ROWS AS
        SELECT organisation, id, name, group_name, community_name, alternative_code, description, active
        FROM unit WITH NO DATA;
    CREATE TEMPORARY TABLE staged_mentioned_unit ON COMMIT DELETE ROWS AS
        SELECT organisation, id, name, group_name, community_name, alternative_code, description
        FROM unit WITH NO DATA;
    CREATE TEMPORARY TABLE staged_app_user ON COMMIT DELETE ROWS AS
        SELECT organisation, id, username, person_name, email, unit, active, rights FROM app_user WITH NO DATA;
    CREATE TEMPORARY TABLE staged_mentioned_user ON COMMIT DELETE ROWS AS
        SELECT organisation, id, username, person_name, email FROM app_user WITH NO DATA;
    CREATE TEMPORARY TABLE staged_revoked_login ON COMMIT DELETE ROWS AS
        SELECT organisation, jti FROM revoked_login WITH NO DATA;
    CREATE TEMPORARY TABLE staged_contact ON COMMIT DELETE ROWS AS
        SELECT organisation, id, body FROM contact WITH NO DATA;
    CREATE TEMPORARY TABLE staged_accounts_receivable ON COMMIT DELETE ROWS AS
        SELECT organisation, id, number, name, life_cycle_state, account_owner FROM accounts_receivable WITH NO DATA;
    CREATE TEMPORARY TABLE staged_rewards_participant ON COMMIT DELETE ROWS AS
        SELECT organisation, id, number, life_cycle_state, accounts_receivable FROM rewards_participant WITH NO DATA;
    CREATE TEMPORARY TABLE staged_classification ON COMMIT DELETE ROWS AS
        SELECT organisation, id, name, alternative_code FROM classification WITH NO DATA;
    CREATE TEMPORARY TABLE staged_access_token ON COMMIT DELETE ROWS AS SELECT * FROM access_token WITH NO DATA;
END
$$
