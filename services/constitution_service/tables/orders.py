"""What people ordered runs to do. Appended to, never changed; each signed order counts once."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from adapters.postgres import Connection
from constitution.api import OrderRecord, OrderRequest
from constitution.errors import OrderUsedError, UnavailableError
from constitution.release import Envelope


@dataclass(frozen=True, slots=True)
class OrderRow:
    """A stored order; ``envelope`` is None where nobody signed."""

    record: OrderRecord
    envelope: Envelope | None


async def append(
    connection: Connection,
    environment: str,
    request: OrderRequest,
    *,
    digest: str,
    person: str | None,
    reason: str,
) -> OrderRecord | None:
    """Append an order and return it; None if this very attempt has appended it before.

    Raises:
        OrderUsedError: it was appended from elsewhere.
    """
    row = await connection.fetchrow(
        """
        INSERT INTO orders (environment, digest, update_id, verb, step, person, reason, envelope, attempt)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (environment, digest) DO NOTHING RETURNING *
        """,
        environment,
        digest,
        UUID(request.update_id),
        request.order,
        request.step,
        person,
        reason,
        None if request.envelope is None else request.envelope.model_dump_json(),
        request.attempt,
    )
    if row is not None:
        return _row(row).record
    known = await _by_digest(connection, environment, digest)
    if known["attempt"] != request.attempt:
        raise OrderUsedError(
            f"this order was obeyed already, at {known['accepted_at'].isoformat(timespec='seconds')}: each counts once",
            hint="sign another one",
        )
    return None


async def read(connection: Connection, environment: str, digest: str) -> OrderRecord:
    """Return an order that was appended."""
    return _row(await _by_digest(connection, environment, digest)).record


async def of_update(connection: Connection, environment: str, update_id: str) -> list[OrderRow]:
    """Return the orders of an update or rollback, oldest first."""
    rows = await connection.fetch(
        "SELECT * FROM orders WHERE environment = $1 AND update_id = $2 ORDER BY position", environment, UUID(update_id)
    )
    return [_row(row) for row in rows]


async def _by_digest(connection: Connection, environment: str, digest: str) -> asyncpg.Record:
    row = await connection.fetchrow("SELECT * FROM orders WHERE environment = $1 AND digest = $2", environment, digest)
    if row is None:
        raise UnavailableError("an order that was accepted is gone")
    return row


def _row(row: asyncpg.Record) -> OrderRow:
    accepted_at: datetime = row["accepted_at"]
    record = OrderRecord(
        digest=row["digest"],
        person=row["person"],
        order=row["verb"],
        step=row["step"],
        reason=row["reason"],
        accepted_at=accepted_at,
    )
    envelope = None if row["envelope"] is None else Envelope.model_validate_json(row["envelope"])
    return OrderRow(record=record, envelope=envelope)
