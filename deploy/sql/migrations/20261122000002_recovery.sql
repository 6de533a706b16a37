-- For the loss of a system: which records lie in the artifact store, which events were sent again to a topic that was
-- lost, and which generations are proved to have been lost (docs/backup-and-restore.md).

-- migrate:up

-- Signed records of releases and standings that the artifact store has taken. The store is written after the commit,
-- so these rows say which records still have to be written.
CREATE TABLE stored_records (
    environment text        NOT NULL,
    generation  bigint      NOT NULL,
    name        text        NOT NULL CHECK (name IN ('release', 'confirmed', 'withdrawn', 'poisoned')),
    stored_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, generation, name),
    FOREIGN KEY (environment, generation) REFERENCES releases
);

-- Where an event lies since it was sent again, under its own id, to a topic that had lost it. The newest row counts.
CREATE TABLE redeliveries (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    outbox_id       bigint      NOT NULL REFERENCES outbox,
    kafka_partition integer     NOT NULL,
    kafka_offset    bigint      NOT NULL,
    delivered_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX redeliveries_by_outbox ON redeliveries (outbox_id, id);

-- Generations that were live and of which nothing is left: never given out again (invariant 3), never claimed to be known.
CREATE TABLE lost_generations (
    environment text        NOT NULL,
    generation  bigint      NOT NULL CHECK (generation >= 1),
    reason      text        NOT NULL CHECK (reason <> ''),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, generation)
);

-- The next generation follows the highest, lost ones included.
CREATE OR REPLACE FUNCTION refuse_gap() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    highest bigint;
BEGIN
    SELECT coalesce(max(generation), 0) INTO highest FROM (
        SELECT generation FROM releases WHERE environment = NEW.environment
        UNION ALL
        SELECT generation FROM lost_generations WHERE environment = NEW.environment
    ) AS given;
    IF NEW.generation <> highest + 1 THEN
        RAISE EXCEPTION 'generation % does not follow %', NEW.generation, highest
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER lost_generations_without_gap BEFORE INSERT ON lost_generations
    FOR EACH ROW EXECUTE FUNCTION refuse_gap();

CREATE TRIGGER stored_records_append_only BEFORE UPDATE OR DELETE ON stored_records
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER redeliveries_append_only BEFORE UPDATE OR DELETE ON redeliveries
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER lost_generations_append_only BEFORE UPDATE OR DELETE ON lost_generations
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER lost_generations_no_truncate BEFORE TRUNCATE ON lost_generations
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

REVOKE ALL ON stored_records, redeliveries, lost_generations FROM constitution_service, constitution_reader;
GRANT SELECT, INSERT ON stored_records, redeliveries, lost_generations TO constitution_service;
GRANT SELECT ON redeliveries, lost_generations TO constitution_reader;

-- migrate:down

-- No down migration: it would drop append-only tables. Restore a backup into an empty database instead.
DO $$ BEGIN RAISE EXCEPTION 'this migration is not reversible'; END $$;
