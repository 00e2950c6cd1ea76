-- Store an erasure. An earlier one keeps its moment, unless something was erased now ($4).
INSERT INTO erasure (organisation, contact, places) VALUES ($1, $2, $3)
ON CONFLICT (organisation, contact) DO UPDATE SET places = excluded.places
    , erased_at = CASE WHEN $4 THEN now() ELSE erasure.erased_at END
