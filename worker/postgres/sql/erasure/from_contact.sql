UPDATE contact SET body = $3::json WHERE organisation = $1 AND id = $2 AND body::text <> $3::text
