-- The steps of each update, and the change requests that a board member has denied. A caller with a worker's token, or
-- with access to Temporal, can neither go back to an earlier step nor go on after the end.

-- migrate:up

-- Denied, by one signed envelope: no update of this request ever goes live.
CREATE TABLE closed_change_requests (
    environment text        NOT NULL,
    id          text        NOT NULL,
    person      text        NOT NULL,
    reason      text        NOT NULL,
    envelope    json        NOT NULL,
    closed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, id),
    FOREIGN KEY (environment, id) REFERENCES change_requests
);

-- The steps of an update; the row with the highest position is where it is. The position is the trigger's, never the
-- caller's: of two writers who saw the same last step, the primary key refuses the second.
CREATE TABLE update_states (
    environment    text        NOT NULL,
    update_id      uuid        NOT NULL,
    position       integer     NOT NULL,
    change_request text        NOT NULL,
    state          text        NOT NULL CHECK (state IN ('open', 'decided', 'lease', 'loaded', 'confirmed', 'undone',
                                                         'denied', 'aborted', 'expired')),
    reason         text        NOT NULL DEFAULT '',
    actor          text        NOT NULL,
    recorded_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, update_id, position),
    FOREIGN KEY (environment, change_request) REFERENCES change_requests
);
CREATE INDEX update_states_by_request ON update_states (environment, change_request);

CREATE FUNCTION check_update_state() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last    update_states%ROWTYPE;
    follows text[];
BEGIN
    SELECT * INTO last FROM update_states
        WHERE environment = NEW.environment AND update_id = NEW.update_id ORDER BY position DESC LIMIT 1;
    NEW.position := coalesce(last.position, 0) + 1;
    follows := CASE coalesce(last.state, '')
        WHEN ''          THEN ARRAY['open']
        WHEN 'open'      THEN ARRAY['decided', 'denied', 'aborted', 'expired']
        WHEN 'decided'   THEN ARRAY['lease', 'denied', 'aborted']
        WHEN 'lease'     THEN ARRAY['loaded', 'denied', 'aborted']
        WHEN 'loaded'    THEN ARRAY['confirmed', 'undone', 'denied']
        WHEN 'confirmed' THEN ARRAY['undone']
        ELSE ARRAY[]::text[]
    END;
    IF last.state = 'denied' AND EXISTS (
        SELECT FROM update_states
        WHERE environment = NEW.environment AND update_id = NEW.update_id AND state = 'loaded')
    THEN
        follows := ARRAY['undone'];  -- it was denied while it was live, unconfirmed
    END IF;
    IF NOT NEW.state = ANY (follows) THEN
        RAISE EXCEPTION 'update % is %: it cannot become %', NEW.update_id, coalesce(last.state, 'unknown'), NEW.state
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF last.change_request <> NEW.change_request THEN
        RAISE EXCEPTION 'update % belongs to %, not to %', NEW.update_id, last.change_request, NEW.change_request
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.state IN ('open', 'decided', 'lease', 'loaded', 'confirmed') AND EXISTS (
        SELECT FROM closed_change_requests WHERE environment = NEW.environment AND id = NEW.change_request)
    THEN
        RAISE EXCEPTION '% was denied: no update of it goes on', NEW.change_request
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER update_states_in_order BEFORE INSERT ON update_states
    FOR EACH ROW EXECUTE FUNCTION check_update_state();

CREATE TRIGGER update_states_append_only BEFORE UPDATE OR DELETE ON update_states
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER closed_change_requests_append_only BEFORE UPDATE OR DELETE ON closed_change_requests
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER update_states_no_truncate BEFORE TRUNCATE ON update_states
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER closed_change_requests_no_truncate BEFORE TRUNCATE ON closed_change_requests
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- TRUNCATE passes by triggers on rows; these tables had no other.
CREATE TRIGGER closed_updates_no_truncate BEFORE TRUNCATE ON closed_updates
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER artifacts_no_truncate BEFORE TRUNCATE ON artifacts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER artifact_signatures_no_truncate BEFORE TRUNCATE ON artifact_signatures
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER change_requests_no_truncate BEFORE TRUNCATE ON change_requests
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER evidence_no_truncate BEFORE TRUNCATE ON evidence
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER cache_deliveries_no_truncate BEFORE TRUNCATE ON cache_deliveries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER idempotency_keys_no_truncate BEFORE TRUNCATE ON idempotency_keys
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER current_releases_no_truncate BEFORE TRUNCATE ON current_releases
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER stored_records_no_truncate BEFORE TRUNCATE ON stored_records
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER redeliveries_no_truncate BEFORE TRUNCATE ON redeliveries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

REVOKE ALL ON update_states, closed_change_requests FROM constitution_service, constitution_reader;
GRANT SELECT, INSERT ON update_states, closed_change_requests TO constitution_service;
GRANT SELECT ON update_states, closed_change_requests TO constitution_reader;

-- migrate:down

-- No down migration: it would drop append-only tables. Restore a backup into an empty database instead.
DO $$ BEGIN RAISE EXCEPTION 'this migration is not reversible'; END $$;
