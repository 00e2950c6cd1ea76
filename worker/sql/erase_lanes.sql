-- Up to where every lane has decided by now.
SELECT id, coalesce(next_offset, 0) AS next_offset FROM lane
