-- Count what a batch has seen, in the order of the rows, as every lane does: so none deadlock. A series that was reset
-- ($6) begins anew with what was added ($7) since; all that failed ($8) stays counted.
WITH seen AS (
    SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::bigint[],
        $8::bigint[]) AS s (organisation, identifier, kind, user_id, account, reset, added, failed)
)
INSERT INTO attempt AS a (organisation, identifier, kind, user_id, account, failures, failed)
SELECT organisation, identifier, kind, user_id, account, added, failed FROM seen
ORDER BY organisation, identifier, kind, user_id, account
ON CONFLICT (organisation, identifier, kind, user_id, account) DO UPDATE SET
    failures = EXCLUDED.failures + CASE WHEN (
        SELECT s.reset FROM seen AS s WHERE s.organisation = a.organisation AND s.identifier = a.identifier
            AND s.kind = a.kind AND s.user_id = a.user_id AND s.account = a.account
    ) THEN 0 ELSE a.failures END,
    failed = a.failed + EXCLUDED.failed,
    last_at = CASE WHEN EXCLUDED.failed > 0 THEN now() ELSE a.last_at END
RETURNING organisation, identifier, kind, user_id, account, failures
