UPDATE contact SET body = $3 WHERE organisation = $1 AND id = $2
