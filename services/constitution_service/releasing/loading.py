"""``load``: puts a release live. Everything is checked and everything is written in ONE transaction.

Release row, pointers of the rings, one event per tenant, audit event and the answer under its idempotency key commit
together or not at all (invariant 6); the relay then delivers the committed rows to Redis and Kafka (relay.py).
"""

from uuid import uuid4

import asyncpg
import structlog

from adapters.postgres import Connection
from constitution import events
from constitution.api import Lease, LoadRequest, LoadResult
from constitution.errors import ConflictError, StaleGenerationError
from constitution.release import ReleasePredicate
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context
from services.constitution_service.errors import NotPossibleError
from services.constitution_service.releasing.authority import Authority, Situation, establish
from services.constitution_service.tables import (
    idempotency,
    leases,
    outbox,
    release_rows,
    releases,
    updates,
)
from services.constitution_service.tables.clock import now_of
from services.constitution_service.tables.releases import Pointer
from signatures.dsse import envelope_digest

_log = structlog.get_logger(__name__)


async def load(context: Context, request: LoadRequest, key: str, client: str) -> LoadResult:
    """Put a release live, or return the stored answer of this very call.

    Args:
        context: of the service.
        request: the body; checked in shape already.
        key: the ``Idempotency-Key``.
        client: whose token it was.

    Raises:
        LeaseLostError, StaleGenerationError, NotCurrentError: the state has changed; ``current`` says to what.
        UpdateClosedError: the update has ended, or its change request was denied or is used up.
        PostgresBehindError: the database has lost releases; nothing goes live until it has them again.
        UnprovedError: nothing has proved yet whether it has.
        IdempotencyMismatchError: the key was used for another body.
        ContentError: refused, with every reason found; see authority.py.
    """
    environment = context.environment
    fingerprint = idempotency.fingerprint("load", request)
    await context.generation_guard.require(next_generation=True)
    async with context.memory.committing() as commit, context.database.transaction() as connection:
        lease = await leases.lock(connection, environment)
        answer = await idempotency.stored_answer(connection, environment, key, fingerprint)
        if answer is not None:
            return LoadResult.model_validate_json(answer)
        held = leases.require(lease, update_id=request.update_id, fencing_token=request.fencing_token)
        await leases.renew(connection, environment)
        if held.kind.undoes != request.kind.undoes:
            raise ConflictError(
                f"the lease was taken for {held.kind}; it does not allow {request.kind}",
                current=held.model_dump(mode="json", exclude={"fencing_token"}),
            )
        await updates.require_loadable(connection, environment, request)
        highest = await releases.highest_generation(connection, environment)
        situation = await _situation(connection, context, request, held)
        if request.expected_generation != highest:
            raise StaleGenerationError(
                f"expected_generation is {request.expected_generation}; the highest is {highest}",
                hint="look at what is current, then decide again",
                current=_current(highest, situation.current),
            )
        authority = await establish(connection, context, request, situation)
        commit.begun = True
        result = await _commit(connection, context, request, situation, authority, generation=highest + 1)
        await updates.loaded(connection, environment, request, client)
        await idempotency.store_answer(connection, environment, key, fingerprint, result.model_dump_json())
        await audit_events.decision(
            connection,
            context,
            activity="release.loaded",
            actor=client,
            message=f"generation {result.generation}: {authority.summary}",
            update_id=request.update_id,
            workflow=request.workflow,
            details={
                "generation": result.generation,
                "kind": request.kind.value,
                "checksum": request.checksum,
                "version": authority.version,
                "rings": list(request.rings),
                "approvers": list(authority.approvers),
                "change_request": authority.change_request,
                "evidence": authority.evidence,
                "rollback_of": request.rollback_of,
                "reissued_by": list(authority.reissued_by),
            },
        )
    context.generation_guard.committed(result.generation)
    _log.info("release_committed", generation=result.generation, checksum=result.checksum, kind=request.kind.value)
    return result


def _current(highest: int, current: Pointer | None) -> dict[str, object]:
    if current is None:
        return {"generation": highest, "version": None, "checksum": None}
    return {"generation": highest, "version": current.version, "checksum": current.checksum}


async def _situation(connection: Connection, context: Context, request: LoadRequest, held: Lease) -> Situation:
    known = context.config.environment.rings()
    unknown = sorted(set(request.rings) - set(known))
    if unknown or len(set(request.rings)) != len(request.rings):
        raise NotPossibleError(f"rings must be some of {', '.join(known)}, each once")
    pointers = await releases.read_pointers(connection, context.environment)
    ours = {ring: pointer for ring, pointer in pointers.items() if ring in request.rings}
    current = max(ours.values(), key=lambda pointer: pointer.generation, default=None)
    if len(ours) not in {0, len(request.rings)} or len({pointer.document for pointer in ours.values()}) > 1:
        raise NotPossibleError("the rings obey different constitutions; load them one by one")
    return Situation(
        moment=await now_of(connection),
        leased_at=held.acquired_at,
        pointers=ours,
        current=current,
    )


async def _commit(
    connection: Connection,
    context: Context,
    request: LoadRequest,
    situation: Situation,
    authority: Authority,
    *,
    generation: int,
) -> LoadResult:
    rings = tuple(sorted(request.rings))
    previous = situation.current
    predicate = ReleasePredicate(
        environment=context.environment,
        rings=rings,
        generation=generation,
        kind=request.kind,
        version=authority.version,
        checksum=request.checksum,
        previous=None if previous is None else previous.checksum,
        rollback_of=request.rollback_of,
        effective_at=situation.moment,
        signatures=authority.signatures,
        signatures_at=authority.signatures_at,
        approvals=tuple(envelope_digest(envelope) for envelope in authority.approvals),
        evidence=authority.evidence,
        update_id=request.update_id,
        reissues=tuple(envelope_digest(envelope) for envelope in authority.reissues),
    )
    result = LoadResult(
        generation=generation,
        version=authority.version,
        checksum=request.checksum,
        event_id=str(uuid4()),
        effective_at=situation.moment,
        statement=context.key.sign(predicate, context.trust),
    )
    try:
        await release_rows.append(
            connection,
            predicate,
            statement=result.statement,
            previous_generation=None if previous is None else previous.generation,
            event_id=result.event_id,
            change_request=authority.change_request,
            reason=request.reason,
            approvers=authority.approvers,
            approvals=authority.approvals,
            workflow=request.workflow.model_dump(mode="json"),
        )
    except asyncpg.IntegrityConstraintViolationError as error:  # the lock makes this impossible; the trigger is sure
        raise StaleGenerationError(f"generation {generation} does not follow the highest") from error
    await _announce(connection, context, request, predicate, result, authority=authority)
    return result


async def _announce(
    connection: Connection,
    context: Context,
    request: LoadRequest,
    predicate: ReleasePredicate,
    result: LoadResult,
    *,
    authority: Authority,
) -> None:
    for tenant in context.config.environment.tenants:
        event = events.UpdatedEvent(
            tenant=tenant,
            environment=context.environment,
            rings=predicate.rings,
            generation=predicate.generation,
            kind=predicate.kind,
            version=predicate.version,
            checksum=predicate.checksum,
            previous=predicate.previous,
            effective_at=predicate.effective_at,
            summary=authority.summary,
            approvers=authority.approvers,
            update_id=request.update_id,
            workflow_id=request.workflow.workflow_id,
            run_id=request.workflow.run_id,
            statement=result.statement,
        )
        event_id = f"{result.event_id}:{tenant}"
        await outbox.add(
            connection,
            context.environment,
            "updated",
            event_id=event_id,
            key=tenant,
            headers=events.updated_headers(event, event_id),
            value=event.model_dump_json(),
            generation=predicate.generation,
            tenant=tenant,
        )
