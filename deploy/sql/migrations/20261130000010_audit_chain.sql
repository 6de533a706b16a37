-- The audit stream's numbers and links: an event gets both when it is relayed, so numbers have no gaps, whichever
-- transactions commit first. Once given they stay: an event that is sent twice is sent as the same bytes.

-- migrate:up

CREATE TABLE audit_chain (
    environment text        NOT NULL,
    sequence    bigint      NOT NULL CHECK (sequence >= 1),
    outbox_id   bigint      NOT NULL UNIQUE REFERENCES outbox,
    previous    text        CHECK (previous ~ '^sha256:[0-9a-f]{64}$'),
    hash        text        NOT NULL CHECK (hash = 'sha256:' || encode(sha256(convert_to(value, 'UTF8')), 'hex')),
    value       text        NOT NULL,  -- the event as it is sent, in RFC 8785 form
    numbered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, sequence)
);

-- Signed heads: each names one event, and so vouches for all before it. ``kept``: under its own name in the store.
CREATE TABLE audit_heads (
    environment text        NOT NULL,
    sequence    bigint      NOT NULL CHECK (sequence >= 1),
    hash        text        NOT NULL CHECK (hash ~ '^sha256:[0-9a-f]{64}$'),
    kept        boolean     NOT NULL,
    envelope    json        NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, sequence)
);
CREATE INDEX audit_heads_kept ON audit_heads (environment, sequence) WHERE kept;

-- The newest event. After a restore from a backup a head from the artifact store may know more than the rows do.
CREATE FUNCTION audit_chain_end(of_environment text, OUT sequence bigint, OUT hash text) LANGUAGE sql STABLE AS $$
    SELECT e.sequence, e.hash FROM (
        (SELECT c.sequence, c.hash FROM audit_chain c WHERE c.environment = of_environment ORDER BY c.sequence DESC LIMIT 1)
        UNION ALL
        (SELECT h.sequence, h.hash FROM audit_heads h WHERE h.environment = of_environment ORDER BY h.sequence DESC LIMIT 1)
    ) AS e ORDER BY e.sequence DESC LIMIT 1
$$;

CREATE FUNCTION check_audit_link() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    newest record;
BEGIN
    SELECT * INTO newest FROM audit_chain_end(NEW.environment);
    IF NEW.sequence <> coalesce(newest.sequence, 0) + 1 OR NEW.previous IS DISTINCT FROM newest.hash THEN
        RAISE EXCEPTION 'audit event % does not follow %', NEW.sequence, coalesce(newest.sequence, 0)
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER audit_chain_linked BEFORE INSERT ON audit_chain FOR EACH ROW EXECUTE FUNCTION check_audit_link();

CREATE FUNCTION check_audit_head() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    newest record;
BEGIN
    SELECT * INTO newest FROM audit_chain_end(NEW.environment);
    IF NEW.sequence < newest.sequence OR (NEW.sequence = newest.sequence AND NEW.hash <> newest.hash) THEN
        RAISE EXCEPTION 'a head names audit event %, which is not the newest', NEW.sequence
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER audit_heads_of_the_newest BEFORE INSERT ON audit_heads FOR EACH ROW EXECUTE FUNCTION check_audit_head();

-- Appends a batch and its head for the process that relays. One statement of the client: a process that is stopped in the
-- middle of a transaction would keep the rows locked, and the stream waiting, until it wakes.
CREATE FUNCTION append_audit_events(
    of_environment text, by_holder text, by_epoch bigint, first_sequence bigint, first_previous text,
    outbox_ids bigint[], hashes text[], event_values text[], head_kept boolean, head_envelope json
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    link text := first_previous;
    last bigint := first_sequence + cardinality(outbox_ids) - 1;
BEGIN
    PERFORM FROM relay_leases
        WHERE environment = of_environment AND holder = by_holder AND epoch = by_epoch FOR SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    FOR n IN 1 .. cardinality(outbox_ids) LOOP
        INSERT INTO audit_chain (environment, sequence, outbox_id, previous, hash, value)
            VALUES (of_environment, first_sequence + n - 1, outbox_ids[n], link, hashes[n], event_values[n]);
        link := hashes[n];
    END LOOP;
    INSERT INTO audit_heads (environment, sequence, hash, kept, envelope)
        VALUES (of_environment, last, link, head_kept, head_envelope);
    RETURN true;
END $$;

CREATE TRIGGER audit_chain_append_only BEFORE UPDATE OR DELETE ON audit_chain
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_heads_append_only BEFORE UPDATE OR DELETE ON audit_heads
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_chain_no_truncate BEFORE TRUNCATE ON audit_chain
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_heads_no_truncate BEFORE TRUNCATE ON audit_heads
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

REVOKE ALL ON audit_chain, audit_heads FROM constitution_service, constitution_reader;
REVOKE ALL ON FUNCTION append_audit_events, audit_chain_end FROM PUBLIC;
GRANT SELECT, INSERT ON audit_chain, audit_heads TO constitution_service;
GRANT EXECUTE ON FUNCTION append_audit_events, audit_chain_end TO constitution_service;
GRANT SELECT ON audit_chain, audit_heads TO constitution_reader;

-- migrate:down

-- There is no way back from a history that must not be lost: restore a backup into an empty database instead.
DO $$ BEGIN RAISE EXCEPTION 'this migration is not reversible'; END $$;
