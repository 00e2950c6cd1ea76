-- Count the attempts of a batch: the failures ($7) and, if there was a success, those of them before the last one ($6,
-- otherwise NULL). In the order of the rows, as every lane does: so none deadlock.
INSERT INTO attempt AS a (organisation, identifier, kind, user_id, account, forgiven, failed)
SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[])
    AS seen (organisation, identifier, kind, user_id, account, forgiven, failed)
ORDER BY organisation, identifier, kind, user_id, account
ON CONFLICT (organisation, identifier, kind, user_id, account) DO UPDATE SET
    forgiven = coalesce(a.failed + EXCLUDED.forgiven, a.forgiven),
    failed = a.failed + EXCLUDED.failed,
    last_at = CASE WHEN EXCLUDED.failed > 0 THEN EXCLUDED.last_at ELSE a.last_at END
RETURNING organisation, identifier, kind, user_id, account, failures
