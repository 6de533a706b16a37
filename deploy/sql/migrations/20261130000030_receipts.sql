-- Receipts: one signed statement of a release's whole story, numbered and chained in the order of sealing.

-- migrate:up

CREATE TABLE receipts (
    environment text        NOT NULL,
    sequence    bigint      NOT NULL CHECK (sequence >= 1),
    generation  bigint      NOT NULL,
    previous    text        CHECK (previous ~ '^sha256:[0-9a-f]{64}$'),
    digest      text        NOT NULL CHECK (digest = 'sha256:' || encode(sha256(convert_to(envelope, 'UTF8')), 'hex')),
    envelope    text        NOT NULL,  -- RFC 8785 bytes, as they are archived
    manifest    text        NOT NULL,  -- the same
    sealed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, sequence),
    UNIQUE (environment, generation),
    FOREIGN KEY (environment, generation) REFERENCES releases,
    CHECK ((sequence = 1) = (previous IS NULL))
);

-- After a restore from a backup the artifact store may know receipts that the rows do not: then numbers go on behind it.
CREATE FUNCTION check_receipt_link() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    newest record;
BEGIN
    SELECT sequence, digest INTO newest FROM receipts
        WHERE environment = NEW.environment ORDER BY sequence DESC LIMIT 1;
    IF NEW.sequence <= coalesce(newest.sequence, 0)
        OR (NEW.sequence = newest.sequence + 1 AND NEW.previous IS DISTINCT FROM newest.digest)
    THEN
        RAISE EXCEPTION 'receipt % does not follow %', NEW.sequence, coalesce(newest.sequence, 0)
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER receipts_linked BEFORE INSERT ON receipts FOR EACH ROW EXECUTE FUNCTION check_receipt_link();

CREATE TRIGGER receipts_append_only BEFORE UPDATE OR DELETE ON receipts
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER receipts_no_truncate BEFORE TRUNCATE ON receipts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

REVOKE ALL ON receipts FROM constitution_service, constitution_reader;
GRANT SELECT, INSERT ON receipts TO constitution_service;
GRANT SELECT ON receipts TO constitution_reader;

-- migrate:down

-- There is no way back from a history that must not be lost: restore a backup into an empty database instead.
DO $$ BEGIN RAISE EXCEPTION 'this migration is not reversible'; END $$;
