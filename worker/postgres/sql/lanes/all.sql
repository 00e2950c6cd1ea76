SELECT id, first_offset FROM lane ORDER BY id
