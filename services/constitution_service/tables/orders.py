"""What people ordered runs to do. Appended to, never changed; each signed order counts once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from adapters.postgres import Connection
from constitution.api import OrderRecord, OrderRequest
from constitution.errors import HeldError, OrderUsedError, UnavailableError
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


def require_not_held(orders: Sequence[OrderRow], promoters: int) -> None:
    """Demand that the last hold was ended: by a resume, or by as many promoters as it takes.

    Raises:
        HeldError: it was not; with who holds, and why.
    """
    records = [row.record for row in orders]
    held = max((i for i, record in enumerate(records) if record.order == "hold"), default=None)
    if held is None:
        return
    after = records[held + 1 :]
    promoted = {record.person for record in after if record.order == "promote"}
    if not any(record.order == "resume" for record in after) and len(promoted) < promoters:
        said = records[held]
        raise HeldError(f"held by {said.person or 'an unsigned message'}: {said.reason}")


def is_resumed(orders: Sequence[OrderRow], *, since: datetime) -> bool:
    """Whether somebody has resumed the run since."""
    return any(row.record.order == "resume" and row.record.accepted_at >= since for row in orders)


async def _by_digest(connection: Connection, environment: str, digest: str) -> asyncpg.Record:
    row = await connection.fetchrow("SELECT * FROM orders WHERE environment = $1 AND digest = $2", environment, digest)
    if row is None:
        raise UnavailableError("an order that was accepted is gone")
    return row


def _row(row: asyncpg.Record) -> OrderRow:
    accepted_at: datetime = row["accepted_at"]
    record = OrderRecord(
        person=row["person"], order=row["verb"], step=row["step"], reason=row["reason"], accepted_at=accepted_at
    )
    envelope = None if row["envelope"] is None else Envelope.model_validate_json(row["envelope"])
    return OrderRow(record=record, envelope=envelope)
