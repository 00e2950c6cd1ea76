SELECT file, line, what FROM import_bad_line
WHERE digest = $1 AND (file, line) > ($2::integer, $3::bigint)
ORDER BY file, line
LIMIT $4
