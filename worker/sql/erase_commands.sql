-- The ids of the commands that were answered with data of these access tokens.
SELECT DISTINCT command_id FROM command_record WHERE organisation = $1 AND access_token_id = ANY ($2::text[])
