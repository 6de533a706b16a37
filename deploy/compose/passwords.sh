#!/bin/sh
# Gives the three roles of deploy/sql/roles.sql their passwords, which psql reads from the environment: none is an argument.
set -eu
psql --username "$POSTGRES_USER" --dbname constitution --set ON_ERROR_STOP=1 <<'SQL'
\getenv owner OWNER_PASSWORD
\getenv service SERVICE_PASSWORD
\getenv reader READER_PASSWORD
ALTER ROLE constitution_owner PASSWORD :'owner';
ALTER ROLE constitution_service PASSWORD :'service';
ALTER ROLE constitution_reader PASSWORD :'reader';
SQL
