-- The access tokens of accounts ($2), or of participants ($3) if they belong to no account. A token of another
-- customer's account stays, whichever participant collects its rewards. Locks nothing.
SELECT id, number, authentication_code, identifier, card_masked_number, num_nonnulls(
        authentication_code, identifier, pass_code_hash, card_masked_number, card_last_4_digits, verification_code,
        verified_date, udf_string_1, udf_string_2, udf_string_3, udf_string_4, udf_string_5, udf_string_6, udf_string_7,
        udf_string_8, udf_float_1, udf_float_2, udf_float_3, udf_float_4, udf_date_1, udf_date_2, udf_date_3, udf_date_4
    ) > 0 AS is_held
FROM access_token
WHERE organisation = $1
    AND (accounts_receivable = ANY ($2::text[]) OR (accounts_receivable IS NULL AND rewards_participant = ANY ($3::text[])))
ORDER BY id
