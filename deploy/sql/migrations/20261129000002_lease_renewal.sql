-- When the lease's holder last gave a sign of life: one that gives none for a while has ended, and anybody may take the
-- lease. Null for a holder from before there was this column: then its acquisition counts.

-- migrate:up

ALTER TABLE leases ADD COLUMN renewed_at timestamptz;

-- migrate:down

ALTER TABLE leases DROP COLUMN renewed_at;
