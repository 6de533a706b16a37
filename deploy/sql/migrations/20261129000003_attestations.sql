-- migrate:up

-- What an assessor signed about what it saw: gate, sync, watch. Only appended to; whoever uses one verifies it again.
CREATE TABLE attestations (
    environment text        NOT NULL,
    digest      text        NOT NULL CHECK (digest ~ '^sha256:[0-9a-f]{64}$'),
    position    bigint      GENERATED ALWAYS AS IDENTITY,
    evidence    text        CHECK (evidence ~ '^sha256:[0-9a-f]{64}$'),  -- what a gate's is about
    generation  bigint      CHECK (generation > 0),                      -- what a sync's or watch's is about
    envelope    jsonb       NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (environment, digest),
    CHECK ((evidence IS NULL) <> (generation IS NULL))
);
CREATE INDEX attestations_of_evidence ON attestations (environment, evidence) WHERE evidence IS NOT NULL;
CREATE INDEX attestations_of_release ON attestations (environment, generation) WHERE generation IS NOT NULL;

CREATE TRIGGER attestations_append_only BEFORE UPDATE OR DELETE ON attestations
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER attestations_no_truncate BEFORE TRUNCATE ON attestations
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

REVOKE ALL ON attestations FROM constitution_service, constitution_reader;
GRANT SELECT, INSERT ON attestations TO constitution_service;
GRANT SELECT ON attestations TO constitution_reader;

-- migrate:down

-- There is no way back from a history that must not be lost: restore a backup into an empty database instead.
DO $$ BEGIN RAISE EXCEPTION 'this migration is not reversible'; END $$;
