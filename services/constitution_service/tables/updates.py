"""Where an update is: the one state machine that says whether it may go on. Appended to, never changed.

``open → decided → lease → loaded → confirmed | undone | denied | aborted | expired``. The database refuses a step that
does not follow (deploy/sql/migrations/20261129000001_updates.sql); these checks say it in words, before. Every writer
holds the lock of the environment's lease, so a load and the end of its update never cross.

An update is known from its first evidence on, which names it (evidence.py). One that an older worker runs is not: its
steps are written when it is loaded. How a person or a run ends an update: update_calls.py.
"""

from uuid import UUID

from adapters.postgres import Connection
from constitution.api import DenialRecord, EvidenceRecord, LoadRequest, UpdateRecord, UpdateState, UpdateStep
from constitution.errors import UpdateClosedError
from constitution.release import Kind
from services.constitution_service.tables import releases

PROGRESS = (UpdateState.OPEN, UpdateState.DECIDED, UpdateState.LEASE, UpdateState.LOADED)
STOPPED = frozenset({UpdateState.DENIED, UpdateState.ABORTED, UpdateState.EXPIRED})
ENDED = STOPPED | {UpdateState.UNDONE}
LIVE = frozenset({UpdateState.LOADED, UpdateState.CONFIRMED})
NEXT = "a new change request can be decided anew"


async def read(connection: Connection, environment: str, update_id: str) -> UpdateRecord | None:
    """Return the record of an update, or None."""
    rows = await connection.fetch(
        "SELECT * FROM update_states WHERE environment = $1 AND update_id = $2 ORDER BY position",
        environment,
        UUID(update_id),
    )
    if not rows:
        return None
    steps = tuple(
        UpdateStep(state=UpdateState(row["state"]), actor=row["actor"], reason=row["reason"], at=row["recorded_at"])
        for row in rows
    )
    return UpdateRecord(
        update_id=update_id, change_request=rows[0]["change_request"], state=steps[-1].state, steps=steps
    )


async def of_request(connection: Connection, environment: str, change_request: str) -> list[UpdateRecord]:
    """Return every update of a change request."""
    rows = await connection.fetch(
        "SELECT DISTINCT update_id FROM update_states WHERE environment = $1 AND change_request = $2",
        environment,
        change_request,
    )
    found = [await read(connection, environment, str(row["update_id"])) for row in rows]
    return [record for record in found if record is not None]


async def append(
    connection: Connection,
    environment: str,
    update_id: str,
    change_request: str,
    state: UpdateState,
    *,
    actor: str,
    reason: str = "",
) -> None:
    """Append one step; the caller has checked that it follows, and holds the lease's lock.

    Raises:
        asyncpg.IntegrityConstraintViolationError: it does not follow.
    """
    await connection.execute(
        """
        INSERT INTO update_states (environment, update_id, position, change_request, state, reason, actor)
        VALUES ($1, $2, 0, $3, $4, $5, $6)
        """,
        environment,
        UUID(update_id),
        change_request,
        state.value,
        reason,
        actor,
    )


async def opened(connection: Connection, record: EvidenceRecord, client: str) -> None:
    """Note the update that evidence names, once; evidence for an unknown change request opens none.

    Raises:
        UpdateClosedError: the update belongs to another change request; or this one was denied, or is used up.
    """
    if record.update_id is None:
        return
    known = await read(connection, record.environment, record.update_id)
    if known is not None:
        require_request(known, record.change_request)
        return
    stored = await connection.fetchval(
        "SELECT true FROM change_requests WHERE environment = $1 AND id = $2",
        record.environment,
        record.change_request,
    )
    if stored:
        await require_request_open(connection, record.environment, record.change_request, record.update_id)
        await append(
            connection,
            record.environment,
            record.update_id,
            record.change_request,
            UpdateState.OPEN,
            actor=client,
            reason="its evidence was stored",
        )


async def require_open(connection: Connection, environment: str, update_id: str) -> UpdateRecord | None:
    """Return the record of an update that may go on; None for an unknown one.

    Raises:
        UpdateClosedError: it has ended, or its change request was denied or is used up.
    """
    record = await read(connection, environment, update_id)
    if record is not None and record.state in ENDED:
        last = record.steps[-1]
        when = last.at.isoformat(timespec="seconds")
        raise UpdateClosedError(
            f"update {update_id} was {last.state} by {last.actor} at {when}: {last.reason}", hint=NEXT
        )
    if await connection.fetchval(
        "SELECT true FROM closed_updates WHERE environment = $1 AND update_id = $2", environment, UUID(update_id)
    ):
        raise UpdateClosedError(f"update {update_id} was closed by a rollback: it can publish nothing any more")
    if record is not None:
        await require_request_open(connection, environment, record.change_request, update_id)
    return record


async def require_loadable(connection: Connection, environment: str, request: LoadRequest) -> None:
    """Demand that the update of this load has not ended, and that its change request is open.

    Raises:
        UpdateClosedError: the update has ended, or its change request was denied or is used up.
    """
    if request.kind is not Kind.UPDATE or request.change_request is None:
        return  # an update without a request is refused elsewhere; the other kinds have none (authority.py)
    record = await require_open(connection, environment, request.update_id)
    if record is not None:
        require_request(record, request.change_request)
    await require_request_open(connection, environment, request.change_request, request.update_id)


async def loaded(connection: Connection, environment: str, request: LoadRequest, actor: str) -> None:
    """Append what a load means: *loaded* with every step to it, which it has proved; or *undone* of what it undoes."""
    if request.rollback_of is not None:
        bad = await releases.read_release(connection, environment, request.rollback_of)
        if bad is not None:
            await _undone(connection, environment, bad.update_id, actor=actor, reason=request.reason)
    if request.kind is not Kind.UPDATE or request.change_request is None:
        return
    record = await read(connection, environment, request.update_id)
    if record is not None and record.state not in PROGRESS:
        raise UpdateClosedError(f"update {request.update_id} is {record.state} already")
    reached = -1 if record is None else PROGRESS.index(record.state)
    for state in PROGRESS[reached + 1 :]:
        await append(connection, environment, request.update_id, request.change_request, state, actor=actor)


async def leased(connection: Connection, environment: str, update_id: str, actor: str) -> None:
    """Append *lease* to an update that was decided; one that was not will show at the load whether it is."""
    record = await read(connection, environment, update_id)
    if record is not None and record.state is UpdateState.DECIDED:
        await append(connection, environment, update_id, record.change_request, UpdateState.LEASE, actor=actor)


async def fenced(connection: Connection, environment: str, update_id: str, actor: str, *, holds_lease: bool) -> None:
    """Close an update that a rollback asks for: it never gets the lease again. An unknown id stays open.

    Otherwise one call could close ids that are yet to come, and a rollback by hand closes nothing but its own.
    """
    record = await read(connection, environment, update_id)
    if record is not None and record.state in PROGRESS and not was_loaded(record):
        await append(
            connection,
            environment,
            update_id,
            record.change_request,
            UpdateState.ABORTED,
            actor=actor,
            reason="its undo took the lease before it was published",
        )
    published = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM releases WHERE environment = $1 AND update_id = $2)", environment, UUID(update_id)
    )
    if record is not None or published or holds_lease:
        await close(connection, environment, update_id)


async def close(connection: Connection, environment: str, update_id: str) -> None:
    """Close an update id for ever; in a transaction of its own, because a rollback that is refused closes it too."""
    await connection.execute(
        "INSERT INTO closed_updates (environment, update_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        environment,
        UUID(update_id),
    )


async def confirmed(connection: Connection, environment: str, update_id: str, actor: str) -> None:
    """Append *confirmed*, if the update is known.

    Raises:
        UpdateClosedError: it was denied while it was live: it must be undone.
    """
    record = await read(connection, environment, update_id)
    if record is None or record.state is UpdateState.CONFIRMED:
        return
    if record.state is not UpdateState.LOADED:
        last = record.steps[-1]
        raise UpdateClosedError(f"update {update_id} is {last.state}, so it cannot be confirmed: {last.reason}")
    await append(connection, environment, update_id, record.change_request, UpdateState.CONFIRMED, actor=actor)


async def _undone(connection: Connection, environment: str, update_id: str, *, actor: str, reason: str) -> None:
    """Append *undone* to an update whose release a rollback or withdraw has taken out of force, if it is known."""
    record = await read(connection, environment, update_id)
    if record is not None and record.state is not UpdateState.UNDONE and was_loaded(record):
        await append(
            connection,
            environment,
            update_id,
            record.change_request,
            UpdateState.UNDONE,
            actor=actor,
            reason=reason,
        )


def was_loaded(record: UpdateRecord) -> bool:
    """Return whether the update was ever live."""
    return any(step.state is UpdateState.LOADED for step in record.steps)


async def denial_of(connection: Connection, environment: str, change_request: str) -> DenialRecord | None:
    """Return who denied a change request, when and why, or None."""
    row = await connection.fetchrow(
        "SELECT person, reason, closed_at FROM closed_change_requests WHERE environment = $1 AND id = $2",
        environment,
        change_request,
    )
    if row is None:
        return None
    return DenialRecord(
        change_request=change_request, denied_by=row["person"], reason=row["reason"], closed_at=row["closed_at"]
    )


def require_request(record: UpdateRecord, change_request: str) -> None:
    """Demand that an update belongs to a change request.

    Raises:
        UpdateClosedError: it belongs to another.
    """
    if record.change_request != change_request:
        raise UpdateClosedError(
            f"update {record.update_id} belongs to {record.change_request}, not to {change_request}"
        )


async def require_request_open(connection: Connection, environment: str, change_request: str, update_id: str) -> None:
    """Demand that a change request was neither denied nor published by another update.

    Raises:
        UpdateClosedError: it was.
    """
    denial = await denial_of(connection, environment, change_request)
    if denial is not None:
        raise UpdateClosedError(f"{change_request} was denied by {denial.denied_by}: {denial.reason}", hint=NEXT)
    used = await connection.fetchval(
        """
        SELECT max(generation) FROM releases
        WHERE environment = $1 AND change_request = $2 AND kind = 'update' AND update_id <> $3
        """,
        environment,
        change_request,
        UUID(update_id),
    )
    if used is not None:
        raise UpdateClosedError(
            f"{change_request} was published already, as generation {used}: a request is good for one release",
            hint=NEXT,
        )
