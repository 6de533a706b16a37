"""What became of a release: appended by the lease's holder, never changed (invariant 3)."""

from uuid import UUID

from adapters.postgres import Connection
from constitution.api import StandingRequest
from constitution.errors import InvalidRequestError, NotCurrentError, NotFoundError
from constitution.release import Kind, Release, Standing
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context
from services.constitution_service.errors import StandingConflictError
from services.constitution_service.releasing import standing_rules
from services.constitution_service.tables import idempotency, leases, releases, updates

# What may follow what; a release that was undone never counts as confirmed again.
FOLLOWS: dict[Standing | None, frozenset[Standing]] = {
    None: frozenset({Standing.CONFIRMED, Standing.WITHDRAWN, Standing.POISONED}),
    Standing.CONFIRMED: frozenset({Standing.WITHDRAWN, Standing.POISONED}),
    Standing.WITHDRAWN: frozenset({Standing.POISONED}),
    Standing.POISONED: frozenset(),
}
# What a standing implies.
SAYS: dict[Standing | None, frozenset[Standing]] = {
    Standing.CONFIRMED: frozenset({Standing.CONFIRMED}),
    Standing.WITHDRAWN: frozenset({Standing.WITHDRAWN}),
    Standing.POISONED: frozenset({Standing.POISONED, Standing.WITHDRAWN}),
}


async def append(context: Context, generation: int, request: StandingRequest, key: str, client: str) -> Release:
    """Append a standing and return the release; what is recorded already changes nothing, and needs no lease.

    What is to be *withdrawn* becomes ``poisoned`` where an assessor saw an anomaly. And ``poisoned`` implies
    *withdrawn*: a run that finishes the rollback of a dead one must not fail because of it.

    Raises:
        NotFoundError: there is no such generation.
        LeaseLostError: the token is not the current one.
        NotCurrentError: only what is live can be confirmed.
        UpdateClosedError: the board has denied what should be confirmed.
        HeldError: an operator holds it.
        StandingConflictError: another standing is recorded that this one cannot follow, or nothing has undone it.
        EvidenceError: no assessor has signed what the standing takes.
        PostgresBehindError: the database has lost releases; its current release may not be the live one.
    """
    await context.generation_guard.require(next_generation=False)
    environment = context.environment
    fingerprint = idempotency.fingerprint(f"standing/{generation}", request)
    seen = await standing_rules.read_seen(context, generation)
    async with context.database.transaction() as connection:
        lease = await leases.lock(connection, environment)
        answer = await idempotency.stored_answer(connection, environment, key, fingerprint)
        found = await releases.read_release(connection, environment, generation)
        if found is None:
            raise NotFoundError(f"there is no generation {generation}")
        if answer is not None:
            return found
        if request.standing not in SAYS.get(found.standing, frozenset()):
            leases.require(lease, update_id=request.update_id, fencing_token=request.fencing_token)
            await leases.renew(connection, environment)
            await _append(connection, context, found, request, seen, client)
        await idempotency.store_answer(connection, environment, key, fingerprint, "{}")
        after = await releases.read_release(connection, environment, generation)
    if after is None:
        raise InvalidRequestError(f"generation {generation} is gone")
    return after


async def _append(  # noqa: PLR0917 - private
    connection: Connection,
    context: Context,
    found: Release,
    request: StandingRequest,
    seen: standing_rules.Seen,
    client: str,
) -> None:
    if request.standing not in FOLLOWS[found.standing]:
        raise StandingConflictError(
            f"generation {found.generation} is {found.standing}; it cannot become {request.standing}",
            current={"generation": found.generation, "standing": found.standing},
        )
    pointers = await releases.read_pointers(connection, context.environment)
    live = {ring: pointers[ring].generation for ring in found.rings if ring in pointers}
    if request.standing is Standing.CONFIRMED and set(live.values()) != {found.generation}:
        raise NotCurrentError(
            f"generation {found.generation} is not what is live; only that can be confirmed", current={"rings": live}
        )
    standing, verdict = request.standing, None
    if request.standing is Standing.CONFIRMED:
        verdict = await standing_rules.require_confirmable(connection, context, found, request, seen)
        if found.kind is Kind.UPDATE:  # a rollback carries the id of the update that it undid
            await updates.confirmed(connection, context.environment, found.update_id, client)
    else:
        standing, verdict = await standing_rules.require_undone(connection, context, found, request, seen)
    await connection.execute(
        """
        INSERT INTO standings (environment, generation, standing, verdict, reason, update_id)
        VALUES ($1, $2, $3, $4, $5, $6)
        """,
        context.environment,
        found.generation,
        standing.value,
        None if verdict is None else verdict.value,
        request.reason,
        UUID(request.update_id),
    )
    await audit_events.decision(
        connection,
        context,
        activity="standing.recorded",
        actor=client,
        message=f"generation {found.generation} is {standing}: {request.reason}",
        update_id=request.update_id,
        details={
            "generation": found.generation,
            "standing": standing.value,
            "checksum": found.checksum,
            "verdict": None if verdict is None else verdict.value,
        },
    )
