-- The transitions of a batch, as the facts say that were written before ($2 to $3 of the lane $1). The version is compared
-- although the rows are locked: the statement then proves itself. The facts are named one by one: of a range Postgres
-- would guess how many there are, and might think it worth reading all access tokens for.
UPDATE access_token AS t
SET life_cycle_state = fact.to_state, version = fact.version, updated_date = $4,
    updated_by_user = fact.user_id, updated_by_unit = fact.unit_id
FROM transition AS fact
WHERE fact.lane = $1 AND fact.sequence = ANY (ARRAY(SELECT generate_series($2::bigint, $3::bigint)))
    AND t.organisation = fact.organisation AND t.id = fact.access_token_id AND t.version = fact.version - 1
