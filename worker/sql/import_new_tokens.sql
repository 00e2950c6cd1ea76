-- Which access tokens this import made itself: their state is still the last line's to say.
CREATE TEMPORARY TABLE new_token (
    organisation text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, PRIMARY KEY (organisation, id)
)
