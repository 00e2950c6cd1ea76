-- The hashes of pass codes, in the order of the identifiers given: to verify them before the transaction opens, and to
-- see under the lock that they are the same. The worker's role can read no others
-- (migrations/0016_hashes_by_function.sql).
SELECT pass_code_hash FROM pass_code_hashes($1, $2)
