-- One small step of retention: at most $3 records of the lane $1, from the offset $4 on, that are older than $2. The
-- function refuses anything that the worker's role may not ask for (migrations/0015_retention_by_function.sql).
SELECT records, last, turn FROM retire_records($1, $2, $3, $4)
