-- The tables of constitution-service. Roles constitution_service (the service) and constitution_reader
-- (the worker's read-back) exist before; the owner of the schema runs migrations and nothing else.
-- Append-only tables (invariant 3) are protected twice: the service has no right to change them, and a trigger refuses everybody.

-- migrate:up

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;

-- Pushed documents. The bytes are here too, so that neither an outage nor a vandal of the artifact store can stop a
-- release; the store is the archive that outlives this database.
CREATE TABLE artifacts (
    environment  text        NOT NULL,
    checksum     text        NOT NULL CHECK (checksum ~ '^sha256:[0-9a-f]{64}$'),
    version      text        NOT NULL,
    document     bytea       NOT NULL,
    storage_uri  text        NOT NULL,
    stored_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, checksum),
    CHECK (checksum = 'sha256:' || encode(sha256(document), 'hex'))
);

-- One per person and kind of signature that the trust policy counts.
CREATE TABLE artifact_signatures (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment  text        NOT NULL,
    checksum     text        NOT NULL,
    digest       text        NOT NULL,
    signature    bytea       NOT NULL,
    stored_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (environment, checksum, digest),
    FOREIGN KEY (environment, checksum) REFERENCES artifacts,
    CHECK (digest = 'sha256:' || encode(sha256(signature), 'hex'))
);

CREATE TABLE change_requests (
    environment  text        NOT NULL,
    id           text        NOT NULL,
    author       text        NOT NULL,
    checksum     text        NOT NULL,
    reason       text        NOT NULL,
    envelope     json        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, id)
);

CREATE TABLE evidence (
    environment  text        NOT NULL,
    digest       text        NOT NULL,
    record       bytea       NOT NULL,
    stored_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, digest),
    CHECK (digest = 'sha256:' || encode(sha256(record), 'hex'))
);

-- One row per environment: locked by every load, lease and standing, so these are serial. update_id is null when free.
CREATE TABLE leases (
    environment   text        PRIMARY KEY,
    fencing_token bigint      NOT NULL DEFAULT 0,
    update_id     uuid,
    kind          text,
    workflow_id   text        NOT NULL DEFAULT '',
    acquired_at   timestamptz
);
CREATE SEQUENCE fencing_tokens;

-- Updates that a rollback has undone, or found to have published nothing: they never get the lease again.
CREATE TABLE closed_updates (
    environment text        NOT NULL,
    update_id   uuid        NOT NULL,
    closed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, update_id)
);

CREATE TABLE releases (
    environment         text        NOT NULL,
    generation          bigint      NOT NULL CHECK (generation >= 1),
    kind                text        NOT NULL CHECK (kind IN ('update', 'rollback', 'reissue', 'withdraw')),
    rings               text[]      NOT NULL CHECK (cardinality(rings) >= 1),
    version             text,
    checksum            text,
    previous_generation bigint,
    previous_checksum   text,
    rollback_of         bigint,
    update_id           uuid        NOT NULL,
    event_id            uuid        NOT NULL UNIQUE,
    change_request      text,
    reason              text        NOT NULL,
    effective_at        timestamptz NOT NULL,
    approvers           text[]      NOT NULL,
    evidence            text,
    statement           json        NOT NULL,
    approvals           json        NOT NULL,
    signatures          text[]      NOT NULL,
    workflow            json        NOT NULL,
    PRIMARY KEY (environment, generation),
    FOREIGN KEY (environment, checksum) REFERENCES artifacts,
    CHECK ((kind = 'withdraw') = (checksum IS NULL)),
    CHECK ((version IS NULL) = (checksum IS NULL))
);
CREATE INDEX releases_by_checksum ON releases (environment, checksum);

CREATE FUNCTION refuse_gap() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    highest bigint;
BEGIN
    SELECT coalesce(max(generation), 0) INTO highest FROM releases WHERE environment = NEW.environment;
    IF NEW.generation <> highest + 1 THEN
        RAISE EXCEPTION 'generation % does not follow %', NEW.generation, highest
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER releases_without_gap BEFORE INSERT ON releases FOR EACH ROW EXECUTE FUNCTION refuse_gap();

-- The current release of each ring: a pointer that only moves forward.
CREATE TABLE current_releases (
    environment text   NOT NULL,
    ring        text   NOT NULL,
    generation  bigint NOT NULL,
    PRIMARY KEY (environment, ring),
    FOREIGN KEY (environment, generation) REFERENCES releases
);
CREATE FUNCTION refuse_backward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.generation <= OLD.generation OR NEW.environment <> OLD.environment OR NEW.ring <> OLD.ring THEN
        RAISE EXCEPTION 'current_releases only moves forward' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER current_releases_forward BEFORE UPDATE ON current_releases
    FOR EACH ROW EXECUTE FUNCTION refuse_backward();

CREATE TABLE standings (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment text        NOT NULL,
    generation  bigint      NOT NULL,
    standing    text        NOT NULL CHECK (standing IN ('confirmed', 'withdrawn', 'poisoned')),
    verdict     text,
    reason      text        NOT NULL,
    update_id   uuid        NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (environment, generation, standing),
    FOREIGN KEY (environment, generation) REFERENCES releases
);

-- Events, committed with the change that they announce; the relay sends each and marks it, once.
CREATE TABLE outbox (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment     text        NOT NULL,
    stream          text        NOT NULL CHECK (stream IN ('updated', 'audit')),
    event_id        text        NOT NULL,
    generation      bigint,
    tenant          text,
    key             text        NOT NULL,
    headers         json        NOT NULL,
    value           text        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    kafka_partition integer,
    kafka_offset    bigint,
    delivered_at    timestamptz,
    UNIQUE (environment, stream, event_id),
    CHECK ((stream = 'updated') = (generation IS NOT NULL AND tenant IS NOT NULL))
);
CREATE INDEX outbox_pending ON outbox (environment, stream, id) WHERE delivered_at IS NULL;
CREATE INDEX outbox_by_generation ON outbox (environment, generation) WHERE stream = 'updated';

CREATE FUNCTION refuse_rewrite() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.delivered_at IS NOT NULL
        OR (NEW.id, NEW.environment, NEW.stream, NEW.event_id, NEW.key, NEW.headers::text, NEW.value, NEW.created_at)
            IS DISTINCT FROM
           (OLD.id, OLD.environment, OLD.stream, OLD.event_id, OLD.key, OLD.headers::text, OLD.value, OLD.created_at)
        OR (NEW.generation, NEW.tenant) IS DISTINCT FROM (OLD.generation, OLD.tenant)
    THEN
        RAISE EXCEPTION 'an outbox row is marked as delivered once and never rewritten'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER outbox_marked_once BEFORE UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION refuse_rewrite();

-- When Redis was read back with a release.
CREATE TABLE cache_deliveries (
    environment text        NOT NULL,
    generation  bigint      NOT NULL,
    checksum    text,
    redis_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, generation),
    FOREIGN KEY (environment, generation) REFERENCES releases
);

-- Answers that were committed; an answer that was not is not here.
CREATE TABLE idempotency_keys (
    environment text        NOT NULL,
    key         text        NOT NULL,
    fingerprint text        NOT NULL,
    answer      text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, key)
);

-- Which process relays; after expires_at another takes over from one that was stopped.
CREATE TABLE relay_leases (
    environment text        PRIMARY KEY,
    holder      text        NOT NULL,
    epoch       bigint      NOT NULL,
    expires_at  timestamptz NOT NULL
);

-- Service processes, and the generation that each last proved to serve.
CREATE TABLE service_processes (
    environment text        NOT NULL,
    process     text        NOT NULL,
    generation  bigint      NOT NULL,
    seen_at     timestamptz NOT NULL,
    PRIMARY KEY (environment, process)
);

CREATE TRIGGER artifacts_append_only BEFORE UPDATE OR DELETE ON artifacts
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER artifact_signatures_append_only BEFORE UPDATE OR DELETE ON artifact_signatures
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER change_requests_append_only BEFORE UPDATE OR DELETE ON change_requests
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER evidence_append_only BEFORE UPDATE OR DELETE ON evidence
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER releases_append_only BEFORE UPDATE OR DELETE ON releases
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER standings_append_only BEFORE UPDATE OR DELETE ON standings
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER cache_deliveries_append_only BEFORE UPDATE OR DELETE ON cache_deliveries
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER idempotency_keys_append_only BEFORE UPDATE OR DELETE ON idempotency_keys
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER closed_updates_append_only BEFORE UPDATE OR DELETE ON closed_updates
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER outbox_never_deleted BEFORE DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER current_releases_never_deleted BEFORE DELETE ON current_releases
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER releases_no_truncate BEFORE TRUNCATE ON releases FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER standings_no_truncate BEFORE TRUNCATE ON standings FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER outbox_no_truncate BEFORE TRUNCATE ON outbox FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Without regard to default privileges, these roles get the rights listed here and no others.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM constitution_service, constitution_reader;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM constitution_service, constitution_reader;
GRANT USAGE ON SCHEMA public TO constitution_service, constitution_reader;
GRANT SELECT, INSERT ON closed_updates, artifacts, artifact_signatures, change_requests, evidence, releases, standings,
    cache_deliveries, idempotency_keys TO constitution_service;
GRANT SELECT, INSERT, UPDATE ON leases, relay_leases, current_releases TO constitution_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON service_processes TO constitution_service;
GRANT SELECT, INSERT ON outbox TO constitution_service;
GRANT UPDATE (kafka_partition, kafka_offset, delivered_at) ON outbox TO constitution_service;
GRANT USAGE ON SEQUENCE fencing_tokens TO constitution_service;
GRANT SELECT ON artifacts, artifact_signatures, change_requests, evidence, leases, releases, current_releases,
    standings, outbox, cache_deliveries, service_processes TO constitution_reader;

-- migrate:down

-- No down migration: it would drop append-only tables. Restore a backup into an empty database instead.
DO $$ BEGIN RAISE EXCEPTION 'this migration is not reversible'; END $$;
