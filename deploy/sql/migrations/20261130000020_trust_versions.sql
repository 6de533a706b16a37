-- Each version of the trust policy that a process of the service had in force. No process starts with an older one.

-- migrate:up

CREATE TABLE trust_versions (
    environment text        NOT NULL,
    version     bigint      NOT NULL CHECK (version >= 1),
    checksum    text        NOT NULL CHECK (checksum ~ '^sha256:[0-9a-f]{64}$'),
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, version, checksum)
);

CREATE TRIGGER trust_versions_append_only BEFORE UPDATE OR DELETE ON trust_versions
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER trust_versions_no_truncate BEFORE TRUNCATE ON trust_versions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

REVOKE ALL ON trust_versions FROM constitution_service, constitution_reader;
GRANT SELECT, INSERT ON trust_versions TO constitution_service;
GRANT SELECT ON trust_versions TO constitution_reader;

-- migrate:down

-- There is no way back from a history that must not be lost: restore a backup into an empty database instead.
DO $$ BEGIN RAISE EXCEPTION 'this migration is not reversible'; END $$;
