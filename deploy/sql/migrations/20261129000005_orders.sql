-- What people ordered runs to do: each order once, with the signed envelope. A hold is lifted only by what stands here.

-- migrate:up

-- ``digest``: of what was signed, so that nobody's order counts twice; of an unsigned message, made of its attempt.
-- ``attempt``: the place in the run that asked; from there it may ask again.
CREATE TABLE orders (
    environment text        NOT NULL,
    digest      text        NOT NULL,
    position    bigint      GENERATED ALWAYS AS IDENTITY,
    update_id   uuid        NOT NULL,
    verb        text        NOT NULL,
    step        text,
    person      text,
    reason      text        NOT NULL,
    envelope    json,
    attempt     text        NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, digest),
    CHECK ((person IS NULL) = (envelope IS NULL))
);
CREATE INDEX orders_by_update ON orders (environment, update_id, position);

CREATE TRIGGER orders_append_only BEFORE UPDATE OR DELETE ON orders
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER orders_no_truncate BEFORE TRUNCATE ON orders
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

REVOKE ALL ON orders FROM constitution_service, constitution_reader;
GRANT SELECT, INSERT ON orders TO constitution_service;
GRANT SELECT ON orders TO constitution_reader;

-- migrate:down

-- There is no way back from a history that must not be lost: restore a backup into an empty database instead.
DO $$ BEGIN RAISE EXCEPTION 'this migration is not reversible'; END $$;
