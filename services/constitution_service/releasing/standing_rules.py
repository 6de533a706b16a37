"""The proof that a standing needs: what an assessor signed, the service's own rows, or signed orders.

A caller's claim is no proof: a stolen worker's token could otherwise confirm an unwatched release, or bar a good
document for ever.
*confirmed*: attestations that every target obeys this very release, and of a watch of it as the board signed it that
confirms by its strategy (constitution/trust/watch_rules.py, invariant 5). No watch is needed for an undo, a first
release, or where the board signed that there is none; orders to promote stand for it. Whatever is signed, nothing is
confirmed while an operator holds it.
*withdrawn* and *poisoned*: a later release undoes it, or the board denied it while it was live; an attested anomaly
poisons, and needs no undo of what is unconfirmed.
Instead of each: orders of as many board members as a rollback takes (a withdraw, for *withdrawn*), that name the
release.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from adapters.artifact_store import blob_path
from adapters.postgres import Connection
from constitution.api import OrderRecord, StandingRequest, UpdateState
from constitution.errors import ContentError, EvidenceError, HeldError, Issue, UntrustedError
from constitution.release import Envelope, Release, Standing, Verdict
from constitution.rollback_plan import step_of
from constitution.trust import approval_rules, hold_rules, watch_rules
from constitution.trust.attestation import SyncPredicate, WatchPredicate
from constitution.trust.plan import Plan
from services.constitution_service.artifacts import attestations
from services.constitution_service.context import Context
from services.constitution_service.errors import StandingConflictError
from services.constitution_service.tables import orders, releases, updates
from services.constitution_service.tables.clock import now_of
from signatures.approved import approved
from signatures.statements import verify_order

ORDERS = {Standing.CONFIRMED: "confirm", Standing.POISONED: "poison", Standing.WITHDRAWN: "withdraw"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What assessors signed about one release."""

    syncs: tuple[SyncPredicate, ...]
    watches: tuple[WatchPredicate, ...]


async def read_seen(context: Context, generation: int) -> Seen:
    """Return what was attested about a release; asked before a lock is held."""
    async with context.database.connection() as connection:
        found = await attestations.verified(connection, context, generation=generation)
    return Seen(
        tuple(said for said in found if isinstance(said, SyncPredicate)),
        tuple(said for said in found if isinstance(said, WatchPredicate)),
    )


async def require_confirmable(
    connection: Connection, context: Context, found: Release, request: StandingRequest, seen: Seen
) -> Verdict:
    """Demand that a release may be called confirmed, and return the verdict about it.

    Raises:
        HeldError: an operator holds it.
        EvidenceError: no assessor has seen what it takes; with every reason.
    """
    given: list[OrderRecord] = []
    if not found.kind.undoes:  # an undo carries the id of the update that it undid
        given = [row.record for row in await orders.of_update(connection, context.environment, found.update_id)]
        for held in hold_rules.standing_holds(given, promoters=context.trust.thresholds.override):
            raise HeldError(held.why)
    now = await now_of(connection)
    issues = await _orders(context, found, request, now)
    if issues is None:
        return Verdict.NOT_WATCHED
    first = not found.kind.undoes and await _is_first(connection, context.environment, found)
    _require_synced(context, found, seen, decides=first and found.checksum is not None)
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
    watches, until = await _judged(connection, context, found, seen)
    if await _orders(context, found, request, now, order="promote") is None:
        decided = watch_rules.deciding(watch_rules.counting(watches, found, plan, until=until))
        return Verdict.CANNOT_TELL if decided is None else decided.verdict
    verdict = watch_rules.confirming(watches, found, plan, until=until, answered=hold_rules.answered_watches(given))
    await _require_stored(context, watch_rules.counting(watches, found, plan, until=until))
    return verdict


async def _require_stored(context: Context, watches: Sequence[WatchPredicate]) -> None:
    """Demand what a confirming verdict rests on. An anomaly counts without: who deletes it must not undo the word."""
    decided = watch_rules.deciding(watches)
    for watch in watches:
        equal = decided is not None and (watch.verdict, watch.ends_at) == (decided.verdict, decided.ends_at)
        if equal and await context.store.get(blob_path(watch.evidence), watch.evidence) is not None:
            return
    if decided is not None:
        raise EvidenceError(
            f"the store has not got the evidence that the watch's {decided.verdict.value} rests on: {decided.evidence}",
            hint="look at the artifact store; a watch that runs again stores its evidence again",
        )


async def require_undone(
    connection: Connection, context: Context, found: Release, request: StandingRequest, seen: Seen
) -> tuple[Standing, Verdict | None]:
    """Demand that a release may be called withdrawn or poisoned; return which it is, and the watch's verdict about it.

    What an assessor saw says which: no caller withdraws what an anomaly poisons.

    Raises:
        StandingConflictError: nothing has undone it.
        EvidenceError: no assessor has seen an anomaly of this very release.
    """
    plan: Plan | None = None
    with contextlib.suppress(UntrustedError):  # an undo is recorded also where a database's approvals were changed
        plan = await _plan(context, found)
    attested, until = await _judged(connection, context, found, seen)
    counted = watch_rules.counting(attested, found, plan, until=until)
    decided = watch_rules.deciding(counted)
    verdict = None if decided is None else decided.verdict
    issues = await _orders(context, found, request, await now_of(connection))
    if issues is None:
        return request.standing, verdict
    standing = watch_rules.undone_standing(counted)
    undone = await _is_undone(connection, context.environment, found)
    must_be_undone = request.standing is Standing.WITHDRAWN or found.standing is Standing.CONFIRMED
    if must_be_undone and not undone:
        raise StandingConflictError(
            f"nothing has undone generation {found.generation}: it cannot be {request.standing}",
            hint=f"constitution rollback --bad-generation {found.generation} --reason 'why'",
            current={"generation": found.generation, "standing": found.standing},
            issues=issues,
        )
    if request.standing is Standing.POISONED and standing is not Standing.POISONED:
        raise EvidenceError(
            f"generation {found.generation} is poisoned only by an anomaly that an assessor saw, or by signed orders",
            issues=[
                *issues,
                *(Issue(code="watch", message=why) for said in attested for why in said.problems(found, plan)),
            ],
        )
    return standing, verdict


def _require_synced(context: Context, found: Release, seen: Seen, *, decides: bool) -> None:
    environment = context.config.environment
    targets = [t for t in environment.targets if t.ring in found.rings]
    engines = [t.id for t in targets if t.kind == "policy_engine"] if decides else []
    sources = [source for source in environment.target_sources if source.ring in found.rings]
    problems = [
        said.problems(found, [t.id for t in targets], engines, sources=sources, decides=decides) for said in seen.syncs
    ]
    if all(problems):  # also of none
        raise EvidenceError(
            f"no assessor has signed that every target obeys generation {found.generation}",
            issues=[Issue(code="sync", message=why) for why in dict.fromkeys(w for many in problems for w in many)],
        )


async def _plan(context: Context, found: Release) -> Plan | None:
    """Return how the board signed that a release is watched; None where nothing says so any more."""
    signed = await asyncio.to_thread(approved, found, context.trust)
    return None if signed is None else signed.plan


async def _judged(
    connection: Connection, context: Context, found: Release, seen: Seen
) -> tuple[tuple[WatchPredicate, ...], datetime | None]:
    """Return the watches there are of a release, and when it was confirmed or replaced.

    A first release is compared with nothing.
    """
    if not seen.watches or await _is_first(connection, context.environment, found):
        return (), None
    replaced = await connection.fetchval(
        "SELECT min(effective_at) FROM releases WHERE environment = $1 AND generation > $2 AND rings && $3",
        context.environment,
        found.generation,
        list(found.rings),
    )
    confirmed = [record.recorded_at for record in found.standings if record.standing is Standing.CONFIRMED]
    return seen.watches, min([*confirmed, *([] if replaced is None else [replaced])], default=None)


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
    thresholds = context.trust.thresholds
    withdraws = request.standing is Standing.WITHDRAWN
    needed = thresholds.override if promotes else thresholds.withdraw if withdraws else thresholds.rollback
    step = None if promotes else step_of(found.generation)
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
