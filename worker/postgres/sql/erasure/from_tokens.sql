-- Erase all columns that tell something of a person or let one in. The id, the number, the state and its log stay.
UPDATE access_token SET authentication_code = NULL, identifier = NULL, pass_code_hash = NULL, card_masked_number = NULL,
    card_last_4_digits = NULL, verification_code = NULL, verified_date = NULL,
    udf_string_1 = NULL, udf_string_2 = NULL, udf_string_3 = NULL, udf_string_4 = NULL,
    udf_string_5 = NULL, udf_string_6 = NULL, udf_string_7 = NULL, udf_string_8 = NULL,
    udf_float_1 = NULL, udf_float_2 = NULL, udf_float_3 = NULL, udf_float_4 = NULL,
    udf_date_1 = NULL, udf_date_2 = NULL, udf_date_3 = NULL, udf_date_4 = NULL
WHERE organisation = $1 AND id = ANY ($2::text[]) AND num_nonnulls(
        authentication_code, identifier, pass_code_hash, card_masked_number, card_last_4_digits, verification_code,
        verified_date, udf_string_1, udf_string_2, udf_string_3, udf_string_4, udf_string_5, udf_string_6, udf_string_7,
        udf_string_8, udf_float_1, udf_float_2, udf_float_3, udf_float_4, udf_date_1, udf_date_2, udf_date_3, udf_date_4
    ) > 0
