-- Apply the transitions of a batch, from the facts that were written before ($2 to $3 of the lane $1). The version is
-- compared although the rows are locked: so the statement proves itself. The facts are named one by one: for a range,
-- Postgres would guess their number, and might choose to read all access tokens.
UPDATE access_token AS t
SET life_cycle_state = fact.to_state, version = fact.version, updated_date = $4,
    updated_by_user = fact.user_id, updated_by_unit = fact.unit_id
FROM transition AS fact
WHERE fact.lane = $1 AND fact.sequence = ANY (ARRAY(SELECT generate_series($2::bigint, $3::bigint)))
    AND t.organisation = fact.organisation AND t.id = fact.access_token_id AND t.version = fact.version - 1
