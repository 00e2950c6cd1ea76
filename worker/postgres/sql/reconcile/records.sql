-- The next of a lane's records in the order of its log. transition_of: the command that an applied one's transition
-- names. is_in_place: that transition has this record's lane and offset; true for facts from before offsets were
-- stored.
SELECT r.record_offset, r.record_timestamp, r.command_id, r.status, r.replayed, r.organisation, r.access_token_id,
    r.version, r.decided_at, t.command_id AS transition_of,
    coalesce(t.lane = r.lane AND t.record_offset = r.record_offset, true) AS is_in_place
FROM command_record AS r
LEFT JOIN transition AS t
    ON t.organisation = r.organisation AND t.access_token_id = r.access_token_id AND t.version = r.version
WHERE r.lane = $1 AND (r.record_offset, r.record_timestamp) > ($2, $3)
ORDER BY r.record_offset, r.record_timestamp
LIMIT $4
