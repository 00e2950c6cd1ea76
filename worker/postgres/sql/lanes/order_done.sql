-- The group's offset is as it was ordered, and the events that had to go with it are published.
WITH done AS (
    UPDATE lane SET ordered_offset = NULL WHERE id = $1 AND owner = $2
    RETURNING id
), settled AS (
    UPDATE command_loss SET settled = true FROM done WHERE command_loss.lane = done.id AND NOT command_loss.settled
)
SELECT id FROM done
