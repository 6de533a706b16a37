-- The board's signed overrides: a document that was undone as harmful may be released again, by one change request.

-- migrate:up

-- ``digest``: of who signed and what was signed, so that nobody's override counts twice.
CREATE TABLE reissues (
    environment    text        NOT NULL,
    digest         text        NOT NULL,
    position       bigint      GENERATED ALWAYS AS IDENTITY,
    change_request text        NOT NULL,
    person         text        NOT NULL,
    reason         text        NOT NULL,
    envelope       json        NOT NULL,
    accepted_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, digest),
    FOREIGN KEY (environment, change_request) REFERENCES change_requests (environment, id)
);
CREATE INDEX reissues_by_request ON reissues (environment, change_request, position);

CREATE TRIGGER reissues_append_only BEFORE UPDATE OR DELETE ON reissues
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER reissues_no_truncate BEFORE TRUNCATE ON reissues
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

REVOKE ALL ON reissues FROM constitution_service, constitution_reader;
GRANT SELECT, INSERT ON reissues TO constitution_service;
GRANT SELECT ON reissues TO constitution_reader;

-- migrate:down

-- There is no way back from a history that must not be lost: restore a backup into an empty database instead.
DO $$ BEGIN RAISE EXCEPTION 'this migration is not reversible'; END $$;
