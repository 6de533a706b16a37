"""Lease calls: the rules of leases.py, once per idempotency key, audited."""

from adapters.postgres import Connection
from constitution.api import Lease, LeaseRelease, LeaseRequest
from constitution.errors import NotFoundError, UnavailableError
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context
from services.constitution_service.releasing import undo_rules
from services.constitution_service.tables import idempotency, leases, releases, updates
from services.constitution_service.tables.clock import now_of


async def acquire(context: Context, request: LeaseRequest, key: str, client: str) -> Lease:
    """Take the lease, or return the stored answer of this very call.

    A stored answer may name a token that is old by now: then a later holder has fenced the caller, which a call that
    arrives twice must find out.

    Raises:
        LeaseHeldError: 409 with the holder.
        UpdateClosedError: 409, the update has ended, or its change request was denied or is used up.
        NotApprovedError: 403, no order to roll back counts.
        NotFoundError: 404, the rollback names no generation that it undoes.
        NotCurrentError: 409, the release to undo was replaced, and the holder keeps the lease.
        IdempotencyMismatchError: the key was used for another body.
        PostgresBehindError: the database has lost releases, and with them who was fenced and closed.
        UnsupportedServerError: 422, a server that the release would go to cannot be used.
        ForbiddenError: 403, Kafka refuses this service's credentials.
    """
    await context.generation_guard.require(next_generation=False)
    if not request.kind.undoes:
        await _require_servers(context)
    fingerprint = idempotency.fingerprint("lease", request)
    if request.kind.undoes:
        async with context.database.transaction() as connection:
            held = (await leases.lock(connection, context.environment)).held
            mine = held is not None and held.update_id == request.update_id
            await updates.fenced(connection, context.environment, request.update_id, client, holds_lease=mine)
    async with context.database.transaction() as connection:
        held = (await leases.lock(connection, context.environment)).held
        answer = await idempotency.stored_answer(connection, context.environment, key, fingerprint)
        if answer is not None:
            answered = Lease.model_validate_json(answer)
            if held is not None and held.fencing_token == answered.fencing_token:
                await leases.renew(connection, context.environment)
            return answered
        if request.kind.undoes and not request.own_only:
            await _require_authority(connection, context, request)
        lease, taken_from = await leases.acquire(connection, context.environment, request, context.lease_ttl)
        if not request.kind.undoes:
            await updates.leased(connection, context.environment, request.update_id, client)
        await idempotency.store_answer(connection, context.environment, key, fingerprint, lease.model_dump_json())
        whom = "" if taken_from is None else f", from {taken_from.kind} {taken_from.update_id}"
        await audit_events.decision(
            connection,
            context,
            activity="lease.acquired" if taken_from is None else "lease.pre-empted",
            actor=client,
            message=f"{lease.kind} {lease.update_id} took the lease with token {lease.fencing_token}{whom}",
            update_id=lease.update_id,
            details={"fencing_token": lease.fencing_token, "workflow_id": lease.workflow_id},
        )
    return lease


async def _require_authority(connection: Connection, context: Context, request: LeaseRequest) -> None:
    """A rollback that takes the lease from others was ordered or decided; an own undo takes it from nobody."""
    bad = (
        None if request.undoes is None else await releases.read_release(connection, context.environment, request.undoes)
    )
    if bad is None:
        raise NotFoundError(
            "a rollback that may take the lease from others names in undoes the generation that it undoes",
            hint="constitution releases",
        )
    now = await now_of(connection)
    if not await undo_rules.is_decided(context, bad, request.approvals, now):
        await undo_rules.require_order(connection, context, bad, request.update_id, at=now, now=now)


async def _require_servers(context: Context) -> None:
    """Refuse a release that could only fail once it is live; a server that is away now may be there by then."""
    for ask in (context.cache.ping, context.sources.require_kafka):
        try:
            await ask()
        except UnavailableError as error:
            if error.permanent:
                raise


async def release(context: Context, request: LeaseRelease, client: str) -> None:
    """Give the lease back. Needs no stored answer: twice, or with an old token, it does nothing."""
    async with context.database.transaction() as connection:
        held = await leases.release(connection, context.environment, request)
        if held is not None:
            await audit_events.decision(
                connection,
                context,
                activity="lease.released",
                actor=client,
                message=f"{held.kind} {held.update_id} gave the lease back",
                update_id=held.update_id,
                details={"fencing_token": held.fencing_token},
            )
