-- Note that an operator has seen the losses of these lanes that were noticed up to $3, when they were shown.
UPDATE command_loss SET acknowledged_at = $2
WHERE lane = ANY ($1::integer[]) AND acknowledged_at IS NULL AND noticed_at <= $3
