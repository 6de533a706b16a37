"""The proof that a standing of an undone release needs: the service's own rows, evidence, or signed orders.

A caller's claim is no proof: a stolen worker's token could otherwise bar a good document for ever.
*withdrawn*: a later release undoes it, or the board denied it while it was live.
*poisoned*: the same for a confirmed release, and evidence that a watch of this very release, as the board signed it,
says anomaly.
Instead of either: orders of as many board members as a rollback takes, that name the release.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from adapters.postgres import Connection
from constitution.api import StandingRequest, UpdateState
from constitution.errors import ContentError, EvidenceError, Issue
from constitution.release import Envelope, Release, Standing, Verdict
from constitution.trust import approval_rules
from constitution.watch.evidence import WatchEvidence
from services.constitution_service.artifacts import evidence
from services.constitution_service.context import Context
from services.constitution_service.errors import StandingConflictError
from services.constitution_service.tables import updates
from services.constitution_service.tables.clock import now_of
from signatures.approved import approved
from signatures.statements import verify_order

ORDERS = {Standing.POISONED: "poison", Standing.WITHDRAWN: "withdraw"}


async def read_evidence(context: Context, request: StandingRequest) -> WatchEvidence | None:
    """Return the evidence that a request to poison names, or None; asked before a lock is held.

    Raises:
        EvidenceError: there is none under this digest, or it is no evidence of a watch.
    """
    if request.standing is not Standing.POISONED or request.evidence is None:
        return None
    try:
        return WatchEvidence.read(await evidence.get_blob(context, request.evidence))
    except ContentError as error:
        raise EvidenceError(f"the evidence {request.evidence} cannot be read: {error.message}") from error


async def require_undone(
    connection: Connection,
    context: Context,
    found: Release,
    request: StandingRequest,
    seen: WatchEvidence | None,
) -> Verdict | None:
    """Demand that a release may be called withdrawn or poisoned, and return the watch's verdict about it.

    Raises:
        StandingConflictError: nothing has undone it.
        EvidenceError: no evidence of an anomaly of this very release is there.
    """
    issues = await _orders(context, found, request, await now_of(connection))
    if issues is None:
        return request.verdict
    undone = await _is_undone(connection, context.environment, found)
    must_be_undone = request.standing is Standing.WITHDRAWN or found.standing is Standing.CONFIRMED
    if must_be_undone and not undone:
        raise StandingConflictError(
            f"nothing has undone generation {found.generation}: it cannot be {request.standing}",
            hint=f"constitution rollback --bad-generation {found.generation} --reason 'why'",
            current={"generation": found.generation, "standing": found.standing},
            issues=issues,
        )
    if request.standing is Standing.WITHDRAWN:
        return request.verdict
    if seen is None:
        raise EvidenceError(
            f"generation {found.generation} is poisoned only by evidence of an anomaly, or by signed orders",
            issues=issues,
        )
    other = list(seen.differences(found))
    signed = await asyncio.to_thread(approved, found, context.trust)
    plan = None if signed is None else signed.plan
    if plan is not None and not seen.is_as_signed(plan, found):  # a watch that is sharp enough alarms at anything
        other.append("it was watched otherwise than the board signed")
    if other or seen.verdict is not Verdict.ANOMALY:
        problem = "; ".join(other) or f"its verdict is {seen.verdict}, not anomaly"
        raise EvidenceError(
            f"the evidence {request.evidence} poisons nothing of generation {found.generation}: {problem}"
        )
    return Verdict.ANOMALY


async def _is_undone(connection: Connection, environment: str, found: Release) -> bool:
    by_release = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM releases WHERE environment = $1 AND rollback_of = $2)",
        environment,
        found.generation,
    )
    if by_release or found.standing is Standing.CONFIRMED:
        return bool(by_release)
    record = await updates.read(connection, environment, found.update_id)
    return record is not None and record.state is UpdateState.DENIED


async def _orders(context: Context, found: Release, request: StandingRequest, now: datetime) -> Sequence[Issue] | None:
    """Return the problem of the orders, or None if they suffice."""
    people: set[str] = set()
    issues: list[Issue] = []
    for index, envelope in enumerate(request.orders):
        try:
            people.add(await asyncio.to_thread(_orderer, context, found, request.standing, envelope, now))
        except ContentError as error:
            issues.append(Issue(code="order", path=f"/orders/{index}", message=error.message))
    return None if len(people) >= context.trust.thresholds.rollback else issues


def _orderer(context: Context, found: Release, standing: Standing, envelope: Envelope, now: datetime) -> str:
    person, predicate = verify_order(envelope, context.trust, now)
    approval_rules.check_order(
        person,
        predicate,
        trust=context.trust,
        environment=context.environment,
        workflow_id=str(found.workflow.get("workflow_id") or ""),
        update_id=found.update_id,
        order=ORDERS[standing],
        step=f"generation-{found.generation}",
        now=now,
    )
    return person
