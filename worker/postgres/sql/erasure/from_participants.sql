UPDATE rewards_participant SET number = NULL
WHERE organisation = $1 AND id = ANY ($2::text[]) AND number IS NOT NULL
