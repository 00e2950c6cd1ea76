#!/bin/sh
# The worker's own role: it may log in, and gets from `migrate` what the journey needs and no more.
set -eu

psql --set=ON_ERROR_STOP=1 --set=password="$EFFECTIVE_WORKER_PASSWORD" \
    --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --no-psqlrc --quiet <<'SQL'
CREATE ROLE worker LOGIN PASSWORD :'password';
SQL
