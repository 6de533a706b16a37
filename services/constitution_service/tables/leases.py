"""The lease (invariant 6): one release at a time per environment, and a token that fences every earlier holder.

The environment's one row is locked by every acquire, load, standing and release, so these are serial. Tokens come from
a sequence and only grow. A rollback or withdraw pre-empts an update or reissue, never another rollback; it does so
also when it carries the update's own id, because it must fence that update's late load. One that says what it undoes
pre-empts only while that is live: a rollback that was decided late must not stop the update that came in between.
A lease ends by itself when its holder gives no sign of life for the time to live: then anybody may take it. Each call
under its token is a sign of life. A lease whose release is live and unconfirmed does not end so: nothing may go live
over it but its undo, which pre-empts. The token of a lease that ended so, and that nobody took, is still the newest, so
its holder may go on.
A rollback also closes the update that it carries: one that was undone can never take the lease late, and hold it for a
run that is dead (updates.py).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from adapters.postgres import Connection
from constitution.api import Lease, LeaseRelease, LeaseRequest
from constitution.errors import LeaseHeldError, LeaseLostError, NotCurrentError
from constitution.release import Kind
from services.constitution_service.tables import releases, updates
from services.constitution_service.tables.clock import now_of


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """The locked row; ``held`` is None while nobody holds the lease. ``renewed_at``: the holder's last sign of life."""

    held: Lease | None
    renewed_at: datetime | None = None


async def lock(connection: Connection, environment: str) -> LeaseRow:
    """Lock the environment's lease row until the transaction ends, and return it."""
    await connection.execute(
        "INSERT INTO leases (environment) VALUES ($1) ON CONFLICT (environment) DO NOTHING", environment
    )
    row = await connection.fetchrow("SELECT * FROM leases WHERE environment = $1 FOR UPDATE", environment)
    return _row(row)


async def read(connection: Connection, environment: str, ttl: timedelta) -> Lease | None:
    """Return who holds the lease, without a lock; None once it has ended by itself."""
    row = _row(await connection.fetchrow("SELECT * FROM leases WHERE environment = $1", environment))
    return None if await _ended(connection, environment, row, ttl) else row.held


async def renew(connection: Connection, environment: str) -> None:
    """Renew the lease of the holder, whose token was checked."""
    await connection.execute("UPDATE leases SET renewed_at = clock_timestamp() WHERE environment = $1", environment)


async def acquire(
    connection: Connection, environment: str, request: LeaseRequest, ttl: timedelta
) -> tuple[Lease, Lease | None]:
    """Take the lease; return it, and whom it was taken from, if anybody.

    The holder that asks again for the same kind gets the same token.

    Raises:
        LeaseHeldError: with the holder in ``current``.
        UpdateClosedError: the update has ended, or its change request was denied or is used up.
        NotCurrentError: another update holds it, and what this rollback undoes is not live: the holder keeps it.
    """
    row = await lock(connection, environment)
    held = row.held
    if not request.kind.undoes:
        await updates.require_open(connection, environment, request.update_id)
    same_side = held is not None and held.kind.undoes == request.kind.undoes
    if held is not None and same_side and held.update_id == request.update_id:
        await renew(connection, environment)
        return held, None
    if held is not None and not await _ended(connection, environment, row, ttl):
        foreign = request.own_only and held.update_id != request.update_id
        if not request.kind.undoes or held.kind.undoes or foreign:
            raise LeaseHeldError(
                f"the lease of {environment} is held by {held.kind} {held.update_id}"
                + (f" ({held.workflow_id})" if held.workflow_id else "")
                + f" since {held.acquired_at.isoformat(timespec='seconds')}",
                hint=await _when_it_ends(connection, environment, row, ttl),
                current=held.model_dump(mode="json", exclude={"fencing_token"}),
            )
        if request.undoes is not None and held.update_id != request.update_id:
            await _require_live(connection, environment, request.undoes, held)
    moment: datetime = await now_of(connection)
    token: int = await connection.fetchval(
        """
        UPDATE leases SET fencing_token = nextval('fencing_tokens'), update_id = $2, kind = $3, workflow_id = $4,
            acquired_at = $5, renewed_at = $5 WHERE environment = $1 RETURNING fencing_token
        """,
        environment,
        UUID(request.update_id),
        request.kind.value,
        request.workflow_id,
        moment,
    )
    lease = Lease(
        update_id=request.update_id,
        kind=request.kind,
        fencing_token=token,
        workflow_id=request.workflow_id,
        acquired_at=moment,
    )
    return lease, held


async def release(connection: Connection, environment: str, request: LeaseRelease) -> Lease | None:
    """Give the lease back and return it; with an old token, or another holder's, nothing happens."""
    held = (await lock(connection, environment)).held
    if held is None or held.update_id != request.update_id or held.fencing_token != request.fencing_token:
        return None
    await connection.execute(
        """
        UPDATE leases SET update_id = NULL, kind = NULL, workflow_id = '', acquired_at = NULL, renewed_at = NULL
        WHERE environment = $1
        """,
        environment,
    )
    return held


async def _require_live(connection: Connection, environment: str, generation: int, held: Lease) -> None:
    live = {pointer.generation for pointer in (await releases.read_pointers(connection, environment)).values()}
    if live != {generation}:
        raise NotCurrentError(
            f"generation {generation} is not what is live: it has been replaced already; "
            f"{held.kind} {held.update_id} keeps the lease",
            hint="constitution current",
            current={"generation": max(live, default=0)},
        )


async def _unconfirmed(connection: Connection, environment: str, held: Lease) -> int | None:
    """Return the generation of the holder that is live and has no standing yet, or None."""
    generation: int | None = await connection.fetchval(
        """
        SELECT max(r.generation) FROM current_releases c JOIN releases r USING (environment, generation)
        WHERE c.environment = $1 AND r.update_id = $2 AND NOT EXISTS (
            SELECT FROM standings s WHERE s.environment = r.environment AND s.generation = r.generation)
        """,
        environment,
        UUID(held.update_id),
    )
    return generation


async def _ended(connection: Connection, environment: str, row: LeaseRow, ttl: timedelta) -> bool:
    if row.held is None:
        return False
    renewed_at = row.renewed_at or row.held.acquired_at
    return await now_of(connection) - renewed_at > ttl and await _unconfirmed(connection, environment, row.held) is None


async def _when_it_ends(connection: Connection, environment: str, row: LeaseRow, ttl: timedelta) -> str:
    if row.held is None:
        return ""
    generation = await _unconfirmed(connection, environment, row.held)
    if generation is not None:
        return f"constitution status  # generation {generation} is live: it ends when that is confirmed or undone"
    ends = (row.renewed_at or row.held.acquired_at) + ttl
    return f"wait until it is given back; without a sign of life it ends at {ends.isoformat(timespec='seconds')}"


def require(row: LeaseRow, *, update_id: str, fencing_token: int) -> Lease:
    """Return the lease if the caller holds it now.

    Raises:
        LeaseLostError: nobody, or somebody else holds it, or the token is an old one; ``current`` names the holder.
    """
    held = row.held
    if held is None:
        raise LeaseLostError("nobody holds the lease: it was given back, or never taken", hint="take the lease first")
    if held.update_id != update_id or held.fencing_token != fencing_token:
        raise LeaseLostError(
            f"the lease is held by {held.kind} {held.update_id}; the token given is not the current one",
            hint="the lease's new holder decides now; look at the current release",
            current=held.model_dump(mode="json", exclude={"fencing_token"}),
        )
    return held


def _row(row: asyncpg.Record | None) -> LeaseRow:
    if row is None or row["update_id"] is None:
        return LeaseRow(held=None)
    lease = Lease(
        update_id=str(row["update_id"]),
        kind=Kind(row["kind"]),
        fencing_token=row["fencing_token"],
        workflow_id=row["workflow_id"],
        acquired_at=row["acquired_at"],
    )
    return LeaseRow(held=lease, renewed_at=row["renewed_at"])
