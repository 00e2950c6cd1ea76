-- The requested members of access tokens as they are now. A line marked with fields is left out unless one of them is
-- requested, so that a batch pays only for the members it shows. Accounts are read separately (project_accounts).
SELECT t.organisation, t.id
    , t.number -- fields: number
    , t.life_cycle_state -- fields: life_cycle_state
    , t.authentication_code -- fields: authentication_code
    , t.identifier -- fields: identifier
    , t.card_masked_number -- fields: card_masked_number
    , t.card_last_4_digits -- fields: card_last_4_digits
    , t.verification_code -- fields: verification_code
    , to_char(t.verified_date, 'YYYY-MM-DD"T"HH24:MI:SS') AS verified_date -- fields: verified_date
    , v.id AS verifier_id, v.username AS verifier_username, v.person_name AS verifier_person_name, v.email AS verifier_email -- fields: verified_by_user
    , t.udf_string_1 -- fields: udf_string_1
    , t.udf_string_2 -- fields: udf_string_2
    , t.udf_string_3 -- fields: udf_string_3
    , t.udf_string_4 -- fields: udf_string_4
    , t.udf_string_5 -- fields: udf_string_5
    , t.udf_string_6 -- fields: udf_string_6
    , t.udf_string_7 -- fields: udf_string_7
    , t.udf_string_8 -- fields: udf_string_8
    , t.udf_float_1 -- fields: udf_float_1
    , t.udf_float_2 -- fields: udf_float_2
    , t.udf_float_3 -- fields: udf_float_3
    , t.udf_float_4 -- fields: udf_float_4
    , to_char(t.udf_date_1, 'YYYY-MM-DD"T"HH24:MI:SS') AS udf_date_1 -- fields: udf_date_1
    , to_char(t.udf_date_2, 'YYYY-MM-DD"T"HH24:MI:SS') AS udf_date_2 -- fields: udf_date_2
    , to_char(t.udf_date_3, 'YYYY-MM-DD"T"HH24:MI:SS') AS udf_date_3 -- fields: udf_date_3
    , to_char(t.udf_date_4, 'YYYY-MM-DD"T"HH24:MI:SS') AS udf_date_4 -- fields: udf_date_4
    , c.id AS classification_id, c.name AS classification_name, c.alternative_code AS classification_alternative_code -- fields: classification
    , t.accounts_receivable AS account_id -- fields: accounts_receivable
    , r.id AS rewards_id, r.number AS rewards_number, r.life_cycle_state AS rewards_life_cycle_state, r.accounts_receivable AS rewards_account_id -- fields: rewards_participant
    , to_char(t.created_date, 'YYYY-MM-DD"T"HH24:MI:SS') AS created_date, to_char(t.updated_date, 'YYYY-MM-DD"T"HH24:MI:SS') AS updated_date -- fields: log_information
    , cu.id AS created_user_id, cu.username AS created_user_username, cu.person_name AS created_user_person_name, cu.email AS created_user_email -- fields: log_information
    , uu.id AS updated_user_id, uu.username AS updated_user_username, uu.person_name AS updated_user_person_name, uu.email AS updated_user_email -- fields: log_information
    , cn.id AS created_unit_id, cn.name AS created_unit_name, cn.group_name AS created_unit_group_name, cn.community_name AS created_unit_community_name, cn.alternative_code AS created_unit_alternative_code, cn.description AS created_unit_description -- fields: log_information
    , un.id AS updated_unit_id, un.name AS updated_unit_name, un.group_name AS updated_unit_group_name, un.community_name AS updated_unit_community_name, un.alternative_code AS updated_unit_alternative_code, un.description AS updated_unit_description -- fields: log_information
FROM unnest($1::text[], $2::text[]) AS shown (organisation, id)
JOIN access_token AS t USING (organisation, id)
LEFT JOIN app_user AS v ON v.organisation = t.organisation AND v.id = t.verified_by_user -- fields: verified_by_user
LEFT JOIN classification AS c ON c.organisation = t.organisation AND c.id = t.classification -- fields: classification
LEFT JOIN rewards_participant AS r ON r.organisation = t.organisation AND r.id = t.rewards_participant -- fields: rewards_participant
LEFT JOIN app_user AS cu ON cu.organisation = t.organisation AND cu.id = t.created_by_user -- fields: log_information
LEFT JOIN app_user AS uu ON uu.organisation = t.organisation AND uu.id = t.updated_by_user -- fields: log_information
LEFT JOIN unit AS cn ON cn.organisation = t.organisation AND cn.id = t.created_by_unit -- fields: log_information
LEFT JOIN unit AS un ON un.organisation = t.organisation AND un.id = t.updated_by_unit -- fields: log_information
