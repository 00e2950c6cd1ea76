-- The losses of these lanes, in the order in which they were noticed.
SELECT lane, begin_offset, end_offset, decided_end, noticed_at, settled, acknowledged_at
FROM command_loss
WHERE lane = ANY ($1::integer[])
ORDER BY lane, noticed_at, begin_offset
