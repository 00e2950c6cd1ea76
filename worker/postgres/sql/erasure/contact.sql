-- A contact: is_held if its body says more than the empty one ($3), and the numbers of its papers and registers.
SELECT body::text <> $3 AS is_held, body #>> '{demographics,id_number}' AS id_number,
    body #>> '{demographics,passport_number}' AS passport_number,
    body #>> '{demographics,social_security_number}' AS social_security_number,
    body #>> '{company_profile,vat_registration_number}' AS vat_registration_number,
    body #>> '{company_profile,registration_number}' AS registration_number
FROM contact
WHERE organisation = $1 AND id = $2
