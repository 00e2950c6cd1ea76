-- Several may publish at once: events that one of them has published stay published.
UPDATE lane SET first_offset = greatest(first_offset, $2) WHERE id = $1
