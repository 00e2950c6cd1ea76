-- hashes of pass codes are told of the identifiers that are asked for, a few at a time
-- depends: 0015_retention_by_function

-- migrate: apply

-- In the order asked, and nothing for an identifier that is not there. As many at once as a batch compares.
CREATE FUNCTION pass_code_hashes(organisations text[], identifiers text[]) RETURNS TABLE (pass_code_hash text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 16 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF cardinality(organisations) > 16 OR cardinality(identifiers) > 16 THEN
        RAISE EXCEPTION 'hashes of pass codes are told 16 at a time: % are refused',
            greatest(cardinality(organisations), cardinality(identifiers))
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN QUERY
    SELECT t.pass_code_hash
    FROM unnest(organisations, identifiers) WITH ORDINALITY AS asked (organisation, identifier, position)
    LEFT JOIN public.access_token AS t ON t.organisation = asked.organisation AND t.identifier = asked.identifier
    ORDER BY asked.position;
END
$$;
REVOKE EXECUTE ON FUNCTION pass_code_hashes FROM PUBLIC;

-- migrate: rollback

DROP FUNCTION pass_code_hashes;
