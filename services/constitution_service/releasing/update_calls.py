"""Calls that move an update on, or end it, outside of a load: by signatures, by the clock, or by stopping.

Stopping is always safe, so it takes no signature; going on takes one, and so does closing a change request for ever.
Each is safe to repeat, and audited once. The rules are those of updates.py.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from adapters.postgres import Connection
from constitution.api import (
    ChangeRequestRecord,
    CloseRequest,
    DecidedRequest,
    DenialRecord,
    UpdateRecord,
    UpdateState,
)
from constitution.errors import ConflictError, Issue, NotApprovedError, NotFoundError, UnavailableError, UntrustedError
from constitution.messages import undo_command
from constitution.release import Envelope, Kind
from constitution.trust.approval import ApprovalPredicate, BoardDecision
from constitution.trust.approval_rules import CLOCK_SKEW
from services.constitution_service.artifacts import change_requests
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context
from services.constitution_service.tables import leases, orders, updates
from services.constitution_service.tables.clock import now_of
from signatures.statements import verify_approval

_MAX_REASON = 1000
_WHAT = frozenset({"decision", "reason", "issued_at", "expires_at"})  # a decision apart from what it is about


async def one(context: Context, update_id: str) -> UpdateRecord:
    """Return the record of an update.

    Raises:
        NotFoundError: the update is not known.
    """
    async with context.database.connection() as connection:
        record = await _get(connection, context.environment, update_id)
        given = await orders.of_update(connection, context.environment, update_id)
    return record.model_copy(update={"orders": tuple(row.record for row in given)})


async def decide(context: Context, update_id: str, request: DecidedRequest, client: str) -> UpdateRecord:
    """Note that enough board members approved an update; a load counts them again.

    Raises:
        NotFoundError: the update, or its change request, is not known.
        UpdateClosedError: it has ended.
        NotApprovedError: these approvals do not suffice; with what is wrong about each.
    """
    environment = context.environment
    async with context.database.transaction() as connection:
        await leases.lock(connection, environment)
        await _of(connection, environment, update_id, request.change_request)
        record = await updates.require_open(connection, environment, update_id)
        if record is None or record.state is not UpdateState.OPEN:
            return await _get(connection, environment, update_id)
        stored = await change_requests.get(connection, environment, request.change_request)
        moment = await now_of(connection)
        people = await _approvers(context, update_id, stored, request.approvals, moment)
        reason = f"approved by {', '.join(people)}"
        await updates.append(
            connection,
            environment,
            update_id,
            request.change_request,
            UpdateState.DECIDED,
            actor=client,
            reason=reason,
        )
        await _audit(connection, context, update_id, request.change_request, "update.decided", client, reason)
        return await _get(connection, environment, update_id)


async def abort(context: Context, update_id: str, request: CloseRequest, client: str) -> UpdateRecord:
    """End an update that is not live; one that has ended already stays as it ended.

    Past the board's deadline an undecided one ends as *expired*, also by this call.

    Raises:
        NotFoundError: the update, or its change request, is not known.
        ConflictError: it is live; or belongs to another change request.
    """
    async with context.database.transaction() as connection:
        await leases.lock(connection, context.environment)
        record = await _of(connection, context.environment, update_id, request.change_request)
        if record.state in updates.LIVE:
            raise ConflictError(
                f"update {update_id} is live: it is undone, not aborted", hint=await _undo(connection, context, record)
            )
        if record.state not in updates.PROGRESS:
            return record
        deadline, now = _deadline(context, record), await now_of(connection)
        if record.state is UpdateState.OPEN and now >= deadline:
            return await _expired(connection, context, record, client, deadline)
        return await _end(connection, context, record, UpdateState.ABORTED, client, request.reason)


async def expire(context: Context, update_id: str, request: CloseRequest, client: str) -> UpdateRecord:
    """End an undecided update whose deadline has passed by the database's clock.

    Raises:
        NotFoundError: the update, or its change request, is not known.
        ConflictError: the board has decided, or has time left.
    """
    async with context.database.transaction() as connection:
        await leases.lock(connection, context.environment)
        record = await _of(connection, context.environment, update_id, request.change_request)
        if record.state is UpdateState.EXPIRED:
            return record
        if record.state is not UpdateState.OPEN:
            raise ConflictError(f"update {update_id} is {record.state}: no deadline of the board's runs")
        deadline, now = _deadline(context, record), await now_of(connection)
        if now < deadline:
            raise ConflictError(
                f"the board has until {deadline.isoformat(timespec='seconds')} to decide update {update_id}"
            )
        return await _expired(connection, context, record, client, deadline)


async def deny(context: Context, change_request: str, envelope: Envelope, client: str) -> DenialRecord:
    """Close a change request for ever, by one board member's signed denial; a second one changes nothing.

    Raises:
        NotFoundError: there is no such change request.
        NotApprovedError: the envelope is no denial of this request by a board member.
        ConflictError: a release of it is confirmed.
    """
    environment = context.environment
    async with context.database.transaction() as connection:
        await leases.lock(connection, environment)
        stored = await change_requests.get(connection, environment, change_request)
        moment = await now_of(connection)
        person, predicate = await asyncio.to_thread(_denial, context, stored, envelope, moment)
        known = await updates.of_request(connection, environment, change_request)
        for record in known:
            if record.state is UpdateState.CONFIRMED:
                raise ConflictError(
                    f"this denial comes too late: {change_request} is live and confirmed",
                    hint=await _undo(connection, context, record),
                )
        reason = predicate.reason[:_MAX_REASON]
        added = await connection.fetchval(
            """
            INSERT INTO closed_change_requests (environment, id, person, reason, envelope)
            VALUES ($1, $2, $3, $4, $5) ON CONFLICT (environment, id) DO NOTHING RETURNING true
            """,
            environment,
            change_request,
            person,
            reason,
            envelope.model_dump_json(),
        )
        if added:
            for record in known:
                if record.state in updates.PROGRESS:
                    await updates.append(
                        connection,
                        environment,
                        record.update_id,
                        change_request,
                        UpdateState.DENIED,
                        actor=person,
                        reason=reason,
                    )
            await audit_events.decision(
                connection,
                context,
                activity="change_request.denied",
                actor=person,
                message=f"{person} denied {change_request}: {reason}",
                details={
                    "change_request": change_request,
                    "checksum": stored.request.checksum,
                    "updates": [record.update_id for record in known],
                    "client": client,
                },
            )
        denial = await updates.denial_of(connection, environment, change_request)
    if denial is None:
        raise UnavailableError(f"the denial of {change_request} is gone")
    return denial


def _denial(
    context: Context, stored: ChangeRequestRecord, envelope: Envelope, moment: datetime
) -> tuple[str, ApprovalPredicate]:
    """Verify a denial: it counts at any age and on any evidence (approval_rules.py)."""
    try:
        person, predicate = verify_approval(envelope, context.trust, moment)
    except UntrustedError as error:
        raise NotApprovedError(f"this denial does not count: {error.message}", issues=error.issues) from error
    named = (predicate.kind, predicate.environment, predicate.change_request, predicate.checksum)
    wanted = (Kind.UPDATE, context.environment, stored.request.id, stored.request.checksum)
    if predicate.decision is not BoardDecision.DENY:
        raise NotApprovedError(f"{person} has signed an approval, not a denial")
    if person not in context.trust.with_role("board"):
        raise NotApprovedError(f"this denial does not count: {person} is no member of the board")
    if named != wanted:
        raise NotApprovedError(f"this denial does not count: it is not about {stored.request.id} in this environment")
    if predicate.issued_at > moment + CLOCK_SKEW:
        raise NotApprovedError(f"this denial is dated in the future: {predicate.issued_at.isoformat()}")
    return person, predicate


async def _approvers(
    context: Context,
    update_id: str,
    stored: ChangeRequestRecord,
    envelopes: Sequence[Envelope],
    moment: datetime,
) -> tuple[str, ...]:
    """Return who approved one and the same thing: this request, with a plan for this update."""
    board = set(context.trust.with_role("board")) - {stored.request.author}
    agreed: dict[str, set[str]] = defaultdict(set)
    needed: dict[str, int] = {}
    issues: list[Issue] = []
    for index, envelope in enumerate(envelopes):
        try:
            person, predicate = await asyncio.to_thread(verify_approval, envelope, context.trust, moment)
        except UntrustedError as error:
            issues.append(Issue(code="approval", path=f"/approvals/{index}", message=error.message))
            continue
        about = (predicate.kind, predicate.environment, predicate.change_request, predicate.checksum) == (
            Kind.UPDATE,
            context.environment,
            stored.request.id,
            stored.request.checksum,
        )
        plan = predicate.plan
        counts = (
            person in board and predicate.decision is BoardDecision.APPROVE and about and predicate.expires_at > moment
        )
        if plan is None or plan.update_id != update_id or not counts:
            message = f"{person}: does not approve this update now"
            issues.append(Issue(code="approval", path=f"/approvals/{index}", message=message))
            continue
        what = predicate.model_dump_json(exclude=set(_WHAT))
        agreed[what].add(person)
        needed[what] = context.trust.thresholds.for_update(
            first=predicate.previous is None, watched=plan.watch.watch_seconds > 0
        )
    for what, people in agreed.items():
        if len(people) >= needed[what]:
            return tuple(sorted(people))
    raise NotApprovedError(f"too few board members approved update {update_id}", issues=issues)


async def _of(connection: Connection, environment: str, update_id: str, change_request: str) -> UpdateRecord:
    """Return the update, which must belong to the change request that the caller names."""
    record = await _get(connection, environment, update_id)
    if record.change_request != change_request:
        raise ConflictError(f"update {update_id} does not belong to {change_request}")
    return record


async def _get(connection: Connection, environment: str, update_id: str) -> UpdateRecord:
    record = await updates.read(connection, environment, update_id)
    if record is None:
        raise NotFoundError(f"there is no update {update_id}")
    return record


def _deadline(context: Context, record: UpdateRecord) -> datetime:
    return record.steps[0].at + timedelta(seconds=context.config.environment.deadlines.decisions)


async def _expired(
    connection: Connection, context: Context, record: UpdateRecord, client: str, deadline: datetime
) -> UpdateRecord:
    reason = f"the board's deadline passed at {deadline.isoformat(timespec='seconds')}"
    return await _end(connection, context, record, UpdateState.EXPIRED, client, reason)


async def _end(  # noqa: PLR0917 - private
    connection: Connection, context: Context, record: UpdateRecord, state: UpdateState, client: str, reason: str
) -> UpdateRecord:
    await updates.append(
        connection,
        context.environment,
        record.update_id,
        record.change_request,
        state,
        actor=client,
        reason=reason[:_MAX_REASON],
    )
    await _audit(connection, context, record.update_id, record.change_request, f"update.{state.value}", client, reason)
    return await _get(connection, context.environment, record.update_id)


async def _audit(  # noqa: PLR0917 - private
    connection: Connection,
    context: Context,
    update_id: str,
    change_request: str,
    activity: str,
    client: str,
    reason: str,
) -> None:
    await audit_events.decision(
        connection,
        context,
        activity=activity,
        actor=client,
        message=f"update {update_id} of {change_request}: {reason}",
        update_id=update_id,
        details={"change_request": change_request},
    )


async def _undo(connection: Connection, context: Context, record: UpdateRecord) -> str:
    generation = await connection.fetchval(
        "SELECT max(generation) FROM releases WHERE environment = $1 AND update_id = $2::uuid",
        context.environment,
        record.update_id,
    )
    return "constitution status" if generation is None else undo_command(generation)
