-- A person has seen what these lanes have lost, up to what was noticed at the moment they looked.
UPDATE command_loss SET acknowledged_at = $2
WHERE lane = ANY ($1::integer[]) AND acknowledged_at IS NULL AND noticed_at <= $3
