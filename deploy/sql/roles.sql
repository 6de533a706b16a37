-- The database and its three roles, once, as a superuser; then run the migrations as constitution_owner, which grant to
-- each role what it needs and nothing else. Passwords (\password ROLE in psql) or certificates are yours to give:
--   psql --file deploy/sql/roles.sql
-- DATABASE_MIGRATION_URL is of constitution_owner, DATABASE_URL of constitution_service (constitution-service alone),
-- DATABASE_READER_URL of constitution_reader (the worker: it may only read).
CREATE ROLE constitution_owner LOGIN;
CREATE ROLE constitution_service LOGIN;
CREATE ROLE constitution_reader LOGIN;
CREATE DATABASE constitution OWNER constitution_owner;
