-- who may do something here was granted it
-- depends: 0011_lane_of_imports

-- migrate: apply

-- The functions are called by triggers, which need no right to. What else is taken from PUBLIC is in worker_rights.sql,
-- since a copy of the database does not bring it along.
REVOKE EXECUTE ON FUNCTION refuse_transition(), refuse_change_of_history(), refuse_forged_facts(),
    refuse_lane_of_imports() FROM PUBLIC;

-- migrate: rollback

GRANT EXECUTE ON FUNCTION refuse_transition(), refuse_change_of_history(), refuse_forged_facts(),
    refuse_lane_of_imports() TO PUBLIC;
