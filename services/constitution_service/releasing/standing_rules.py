"""The proof that a standing needs: what an assessor signed, the service's own rows, or signed orders.

A caller's claim is no proof: a stolen worker's token could otherwise confirm an unwatched release, or bar a good
document for ever.
*confirmed*: attestations that every target obeys this very release, and of a watch of it as the board signed it, whose
verdict its strategy does not roll back (invariant 5). No watch is needed for an undo, a first release, or where the
board signed that there is none; orders to promote stand for it.
*withdrawn*: a later release undoes it, or the board denied it while it was live.
*poisoned*: the same for a confirmed release, and an attestation of such a watch that saw an anomaly.
Instead of each: orders of as many board members as a rollback takes, that name the release.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from adapters.artifact_store import blob_path
from adapters.postgres import Connection
from constitution.api import StandingRequest, UpdateState
from constitution.errors import ContentError, EvidenceError, Issue
from constitution.release import Envelope, Release, Standing, Verdict
from constitution.trust import approval_rules
from constitution.trust.attestation import SyncPredicate, WatchPredicate, deciding
from constitution.trust.plan import Plan
from services.constitution_service.artifacts import attestations
from services.constitution_service.context import Context
from services.constitution_service.errors import StandingConflictError
from services.constitution_service.tables import releases, updates
from services.constitution_service.tables.clock import now_of
from signatures.approved import approved
from signatures.statements import verify_order

ORDERS = {Standing.CONFIRMED: "confirm", Standing.POISONED: "poison", Standing.WITHDRAWN: "withdraw"}
ENDS_EARLY = timedelta(seconds=1)
"""So much earlier than the strategy says may a watch have ended: times in evidence are rounded."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What assessors signed about one release; watches only if the store has what their verdict rests on."""

    syncs: tuple[SyncPredicate, ...]
    watches: tuple[WatchPredicate, ...]


async def read_seen(context: Context, generation: int) -> Seen:
    """Return what was attested about a release; asked before a lock is held, for evidence may be large."""
    async with context.database.connection() as connection:
        found = await attestations.verified(connection, context, generation=generation)
    watches = [
        said
        for said in found
        if isinstance(said, WatchPredicate)
        and await context.store.get(blob_path(said.evidence), said.evidence) is not None
    ]
    return Seen(tuple(said for said in found if isinstance(said, SyncPredicate)), tuple(watches))


async def require_confirmable(
    connection: Connection, context: Context, found: Release, request: StandingRequest, seen: Seen
) -> Verdict:
    """Demand that a release may be called confirmed, and return the verdict about it.

    Raises:
        EvidenceError: no assessor has seen what it takes; with every reason.
    """
    now = await now_of(connection)
    issues = await _orders(context, found, request, now)
    if issues is None:
        return Verdict.NOT_WATCHED
    first = not found.kind.undoes and await _is_first(connection, context.environment, found)
    _require_synced(context, found, seen, golden=first and found.checksum is not None)
    if found.kind.undoes:
        return Verdict.NOT_WATCHED
    if first:
        return Verdict.NOT_APPLICABLE
    plan = await _plan(context, found)
    if plan is None:
        raise EvidenceError(
            f"no approval of generation {found.generation} says how it is to be watched: it takes signed orders",
            issues=issues,
        )
    if plan.watch.watch_seconds == 0:
        return Verdict.NOT_WATCHED
    watches = await _watches(connection, context, found, seen, plan)
    decided = deciding(watches)
    if await _orders(context, found, request, now, order="promote") is None:
        return Verdict.CANNOT_TELL if decided is None else decided.verdict
    if decided is None:
        refused = [Issue(code="watch", message=why) for said in seen.watches for why in said.problems(found, plan)]
        raise EvidenceError(
            f"no assessor has signed that it watched generation {found.generation} as the board wished", issues=refused
        )
    _require_whole(found, plan, decided, watches)
    return decided.verdict


def _require_whole(found: Release, plan: Plan, decided: WatchPredicate, watches: Sequence[WatchPredicate]) -> None:
    """Demand that a watch ran to its strategy's end, and that none that did must be rolled back."""
    least = found.effective_at + timedelta(seconds=plan.watch.watch_seconds) - ENDS_EARLY
    if decided.verdict is not Verdict.ANOMALY and decided.ends_at < least:
        raise EvidenceError(f"this watch ended at {decided.ends_at}, before its strategy's end at {least}")
    for watch in watches:  # a longer one does not outvote a whole one: whoever has activities run chooses the length
        whole = watch.verdict is Verdict.ANOMALY or watch.ends_at >= least
        if whole and plan.watch.action(watch.verdict) == "rollback":
            raise EvidenceError(f"the watch says {watch.verdict.value}, which its strategy rolls back")


async def require_undone(
    connection: Connection, context: Context, found: Release, request: StandingRequest, seen: Seen
) -> Verdict | None:
    """Demand that a release may be called withdrawn or poisoned, and return the watch's verdict about it.

    Raises:
        StandingConflictError: nothing has undone it.
        EvidenceError: no assessor has seen an anomaly of this very release.
    """
    # Withdrawn must stay possible where the database's approvals are not the signed ones any more.
    plan = await _plan(context, found) if request.standing is Standing.POISONED else None
    decided = deciding(await _watches(connection, context, found, seen, plan))
    verdict = None if decided is None else decided.verdict
    issues = await _orders(context, found, request, await now_of(connection))
    if issues is None:
        return verdict
    undone = await _is_undone(connection, context.environment, found)
    must_be_undone = request.standing is Standing.WITHDRAWN or found.standing is Standing.CONFIRMED
    if must_be_undone and not undone:
        raise StandingConflictError(
            f"nothing has undone generation {found.generation}: it cannot be {request.standing}",
            hint=f"constitution rollback --bad-generation {found.generation} --reason 'why'",
            current={"generation": found.generation, "standing": found.standing},
            issues=issues,
        )
    if request.standing is Standing.POISONED and verdict is not Verdict.ANOMALY:
        raise EvidenceError(
            f"generation {found.generation} is poisoned only by an anomaly that an assessor saw, or by signed orders",
            issues=[
                *issues,
                *(Issue(code="watch", message=why) for said in seen.watches for why in said.problems(found, plan)),
            ],
        )
    return verdict


def _require_synced(context: Context, found: Release, seen: Seen, *, golden: bool) -> None:
    targets = [t.id for t in context.config.environment.targets if t.ring in found.rings]
    problems = [said.problems(found, targets, golden=golden) for said in seen.syncs]
    if all(problems):  # also of none
        raise EvidenceError(
            f"no assessor has signed that every target obeys generation {found.generation}",
            issues=[Issue(code="sync", message=why) for why in dict.fromkeys(w for many in problems for w in many)],
        )


async def _plan(context: Context, found: Release) -> Plan | None:
    """Return how the board signed that a release is watched; None where nothing says so any more."""
    signed = await asyncio.to_thread(approved, found, context.trust)
    return None if signed is None else signed.plan


async def _watches(
    connection: Connection, context: Context, found: Release, seen: Seen, plan: Plan | None
) -> list[WatchPredicate]:
    """Return the watches that count: as the board signed them, of what this release and no other did to the traffic.

    A first release is compared with nothing. An anomaly from after the confirmation, or after the next release of the
    same rings, says nothing about this one.
    """
    if not seen.watches or await _is_first(connection, context.environment, found):
        return []
    replaced = await connection.fetchval(
        "SELECT min(effective_at) FROM releases WHERE environment = $1 AND generation > $2 AND rings && $3",
        context.environment,
        found.generation,
        list(found.rings),
    )
    confirmed = [record.recorded_at for record in found.standings if record.standing is Standing.CONFIRMED]
    until = min([*confirmed, *([] if replaced is None else [replaced])], default=None)
    return [
        said
        for said in seen.watches
        if not said.problems(found, plan)
        and (said.verdict is not Verdict.ANOMALY or until is None or said.decided_at <= until)
    ]


async def _is_first(connection: Connection, environment: str, found: Release) -> bool:
    if found.previous_generation is None:
        return True
    previous = await releases.read_release(connection, environment, found.previous_generation)
    return previous is not None and previous.checksum is None


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


async def _orders(
    context: Context, found: Release, request: StandingRequest, now: datetime, order: str | None = None
) -> Sequence[Issue] | None:
    """Return the problems of the orders, or None if they suffice; by default those that name the release."""
    promotes = order is not None
    needed = context.trust.thresholds.override if promotes else context.trust.thresholds.rollback
    step = None if promotes else f"generation-{found.generation}"
    people: set[str] = set()
    issues: list[Issue] = []
    for index, envelope in enumerate(request.orders):
        try:
            people.add(
                await asyncio.to_thread(
                    _orderer, context, found, envelope, now, order or ORDERS[request.standing], step
                )
            )
        except ContentError as error:
            issues.append(Issue(code="order", path=f"/orders/{index}", message=error.message))
    return None if len(people) >= needed else issues


def _orderer(  # noqa: PLR0917 - for a thread
    context: Context, found: Release, envelope: Envelope, now: datetime, order: str, step: str | None
) -> str:
    person, predicate = verify_order(envelope, context.trust, now)
    approval_rules.check_order(
        person,
        predicate,
        trust=context.trust,
        environment=context.environment,
        workflow_id=str(found.workflow.get("workflow_id") or ""),
        update_id=found.update_id,
        order=order,
        step=step,
        now=now,
    )
    return person
