UPDATE accounts_receivable SET number = NULL, name = NULL
WHERE organisation = $1 AND id = ANY ($2::text[]) AND num_nonnulls(number, name) > 0
