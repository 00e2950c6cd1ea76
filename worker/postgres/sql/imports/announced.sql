-- Several may publish at once: what one of them has published stays published.
UPDATE lane SET first_offset = greatest(first_offset, $2) WHERE id = $1
