-- The unit of a user, and whether the user may log in.
SELECT unit, active FROM app_user WHERE organisation = $1 AND username = $2
