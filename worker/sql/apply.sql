-- The transitions of a batch. The version is compared although the rows are locked: the statement then proves itself.
UPDATE access_token AS t
SET life_cycle_state = a.to_state, version = a.version, updated_date = $6,
    updated_by_user = a.user_id, updated_by_unit = a.unit_id
FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::text[], $7::text[])
    AS a (organisation, id, version, user_id, unit_id, to_state)
WHERE t.organisation = a.organisation AND t.id = a.id AND t.version = a.version - 1
