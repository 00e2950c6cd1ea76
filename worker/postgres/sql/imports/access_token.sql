-- State and version of an existing access token are never touched, nor is a log entry that a command wrote last. A pass
-- code or a log that a line does not give stays as it is. Returns the new ones, whose first state is an event: one that
-- was removed earlier goes on with its history.
WITH loaded AS (
    INSERT INTO access_token AS t (
        organisation, id, life_cycle_state, version, pass_code_hash, number, authentication_code, identifier,
        card_masked_number, card_last_4_digits, verification_code, verified_date, verified_by_user, udf_string_1,
        udf_string_2, udf_string_3, udf_string_4, udf_string_5, udf_string_6, udf_string_7, udf_string_8, udf_float_1,
        udf_float_2, udf_float_3, udf_float_4, udf_date_1, udf_date_2, udf_date_3, udf_date_4, classification,
        accounts_receivable, rewards_participant, created_date, created_by_user, created_by_unit, updated_date,
        updated_by_user, updated_by_unit
    )
    SELECT
        organisation, id, life_cycle_state,
        1 + coalesce((
            SELECT max(f.version) FROM transition AS f
            WHERE f.organisation = line.organisation AND f.access_token_id = line.id
        ), 0),
        pass_code_hash, number, authentication_code, identifier,
        card_masked_number, card_last_4_digits, verification_code, verified_date, verified_by_user, udf_string_1,
        udf_string_2, udf_string_3, udf_string_4, udf_string_5, udf_string_6, udf_string_7, udf_string_8, udf_float_1,
        udf_float_2, udf_float_3, udf_float_4, udf_date_1, udf_date_2, udf_date_3, udf_date_4, classification,
        accounts_receivable, rewards_participant, created_date, created_by_user, created_by_unit, updated_date,
        updated_by_user, updated_by_unit
    FROM pg_temp.staged_access_token AS line
    ON CONFLICT (organisation, id) DO UPDATE SET
        number = excluded.number, authentication_code = excluded.authentication_code,
        identifier = excluded.identifier, card_masked_number = excluded.card_masked_number,
        card_last_4_digits = excluded.card_last_4_digits, verification_code = excluded.verification_code,
        verified_date = excluded.verified_date, verified_by_user = excluded.verified_by_user,
        udf_string_1 = excluded.udf_string_1, udf_string_2 = excluded.udf_string_2,
        udf_string_3 = excluded.udf_string_3, udf_string_4 = excluded.udf_string_4,
        udf_string_5 = excluded.udf_string_5, udf_string_6 = excluded.udf_string_6,
        udf_string_7 = excluded.udf_string_7, udf_string_8 = excluded.udf_string_8,
        udf_float_1 = excluded.udf_float_1, udf_float_2 = excluded.udf_float_2, udf_float_3 = excluded.udf_float_3,
        udf_float_4 = excluded.udf_float_4, udf_date_1 = excluded.udf_date_1, udf_date_2 = excluded.udf_date_2,
        udf_date_3 = excluded.udf_date_3, udf_date_4 = excluded.udf_date_4, classification = excluded.classification,
        accounts_receivable = excluded.accounts_receivable, rewards_participant = excluded.rewards_participant,
        pass_code_hash = coalesce(excluded.pass_code_hash, t.pass_code_hash),
        created_date = coalesce(excluded.created_date, t.created_date),
        created_by_user = coalesce(excluded.created_by_user, t.created_by_user),
        created_by_unit = coalesce(excluded.created_by_unit, t.created_by_unit),
        (updated_date, updated_by_user, updated_by_unit) = (
            SELECT CASE WHEN by_command THEN t.updated_date ELSE coalesce(excluded.updated_date, t.updated_date) END,
                CASE WHEN by_command THEN t.updated_by_user ELSE coalesce(excluded.updated_by_user, t.updated_by_user) END,
                CASE WHEN by_command THEN t.updated_by_unit ELSE coalesce(excluded.updated_by_unit, t.updated_by_unit) END
            FROM (
                SELECT EXISTS (
                    SELECT FROM transition AS f
                    WHERE f.organisation = t.organisation AND f.access_token_id = t.id AND f.version = t.version
                        AND f.cause = 'API'
                ) AS by_command
            ) AS last
        )
    RETURNING t.organisation, t.id, t.version, t.life_cycle_state, t.xmax = 0 AS made
)
SELECT organisation, id, version, life_cycle_state FROM loaded WHERE made ORDER BY organisation, id
