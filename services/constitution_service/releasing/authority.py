"""Authorises a load (invariant 5): checks what each kind of release requires, inside the load's transaction.

Nothing here writes. Signatures, evidence and approvals are checked again although a workflow checked them before: a
stolen worker with a valid token cannot load a document that the board did not approve.
"""

import asyncio
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from adapters.postgres import Connection
from constitution.api import LoadRequest
from constitution.checksum import checksum_of
from constitution.errors import (
    InvalidDocumentError,
    Issue,
    NotApprovedError,
    NotCurrentError,
    NotFoundError,
    UntrustedError,
)
from constitution.policy import validity
from constitution.policy.document import Constitution, parse
from constitution.release import Envelope, Kind, Release
from constitution.trust import approval_rules
from constitution.trust.approval import ApprovalPredicate, BoardDecision
from constitution.trust.approval_rules import Binding
from constitution.trust.plan import Plan
from constitution.trust.trust_policy import TrustPolicy
from services.constitution_service.artifacts import artifacts, change_requests, evidence, poisoned
from services.constitution_service.artifacts.harmful import find
from services.constitution_service.context import Context
from services.constitution_service.errors import NotPossibleError
from services.constitution_service.releasing import undo_rules
from services.constitution_service.tables import release_queries, releases
from services.constitution_service.tables.releases import Pointer
from signatures.approved import approved
from signatures.statements import verify_approval, verify_release

MAX_APPROVALS = 64  # each is verified under the lease's lock


@dataclass(frozen=True, slots=True)
class Authority:
    """The proved facts of a load.

    Args:
        version: of what goes live; None for a withdraw.
        signatures: digests of the document's signature files that go with it.
        signatures_at: when they were judged, if that is not the release's own time.
        approvers: ids of the people who approved it.
        approvals: their envelopes.
        evidence: digest of the evidence, where the kind takes one.
        change_request: its id, where the kind takes one.
        summary: one sentence for the event.
        reissued_by: whose overrides let a poisoned document come again.
        reissues: those overrides, as signed.
    """

    version: str | None
    signatures: tuple[str, ...]
    approvers: tuple[str, ...]
    approvals: tuple[Envelope, ...]
    evidence: str | None
    change_request: str | None
    summary: str
    signatures_at: datetime | None = None
    reissued_by: tuple[str, ...] = ()
    reissues: tuple[Envelope, ...] = ()


@dataclass(frozen=True, slots=True)
class Situation:
    """The state that a load meets, read after the lease row was locked.

    Args:
        moment: the database's time.
        pointers: what each ring of the load obeys now.
        current: the newest of these; None if none obeys anything.
        leased_at: when the lease was taken.
    """

    moment: datetime
    leased_at: datetime
    pointers: Mapping[str, Pointer]
    current: Pointer | None


@dataclass(frozen=True, slots=True)
class _Decisions:
    """The signed decisions of a request: (person, what they say, envelope); and why the others do not verify."""

    verified: list[tuple[str, ApprovalPredicate, Envelope]]
    issues: list[Issue]


async def establish(connection: Connection, context: Context, request: LoadRequest, situation: Situation) -> Authority:
    """Return the authority of this load.

    Raises:
        NotPossibleError, InvalidDocumentError, UntrustedError, EvidenceError, NotApprovedError, NotFoundError,
        NotCurrentError: it may not; with every reason that was found.
    """
    if request.kind in {Kind.UPDATE, Kind.REISSUE}:
        return await _for_document(connection, context, request, situation)
    return await _for_undoing(connection, context, request, situation)


async def _for_document(
    connection: Connection, context: Context, request: LoadRequest, situation: Situation
) -> Authority:
    if request.checksum is None:
        raise NotPossibleError(f"a load of kind {request.kind} needs a checksum")
    if request.rollback_of is not None:
        raise NotPossibleError(f"a load of kind {request.kind} undoes nothing: leave out rollback_of")
    stored = await artifacts.get(connection, context.environment, request.checksum)
    document = await asyncio.to_thread(parse, stored.document)
    current = None if situation.current is None else situation.current.document
    if document.effective_at is not None and document.effective_at > situation.moment:
        raise InvalidDocumentError(
            f"{document.version} is effective from {document.effective_at.isoformat()}; load it then",
            issues=[Issue(code="not-effective-yet", path="/effective_at", message="effective_at is in the future")],
        )
    harmful = await find(connection, context, request.checksum, document)
    judged = await poisoned.judge(
        connection,
        context,
        harmful,
        request.checksum,
        moment=situation.moment,
        change_request=(request.change_request if request.kind is Kind.UPDATE else None) or "",  # "": of none
    )
    highest = await release_queries.highest_version(
        connection, context.environment, request.checksum, reissued=bool(judged.reissued_by)
    )
    issues = list(
        validity.check(
            document,
            kind=request.kind,
            environment=context.environment,
            current=current,
            highest_version=highest,
            now=situation.moment,
        )
    )
    if request.kind is Kind.REISSUE and (current is None or current.checksum != request.checksum):
        issues.append(Issue(code="not-current", path="/checksum", message="a reissue repeats the current document"))
    issues += judged.issues
    if issues:
        named = shlex.quote(request.change_request or "CR-142")
        hint = (
            f"constitution reissue {named} --reason 'why'  # as many of the board as it takes" if judged.issues else ""
        )
        raise InvalidDocumentError(f"{document.version} may not go live as {request.kind}", issues=issues, hint=hint)
    signatures = await _signatures(context, stored, situation.moment, request.kind, first=current is None)
    thresholds = context.trust.thresholds
    author: str | None = None
    threshold = thresholds.for_reissue()
    decisions = await _decisions(context, request, situation.moment)
    plan: Plan | None = None
    if request.kind is Kind.UPDATE:
        author = await _author(connection, context, request)
        await evidence.check(context, connection, request, document)
        plan = _plan(decisions, request, situation.moment)
        threshold = thresholds.for_update(first=current is None, watched=plan.watch.watch_seconds > 0)
    approvers, approvals = _approved(
        context,
        decisions,
        _document_binding(context, request, document, plan),
        threshold=threshold,
        author=author,
        moment=situation.moment,
    )
    return Authority(
        version=document.version,
        signatures=signatures,
        approvers=approvers,
        approvals=approvals,
        evidence=request.test_evidence,
        change_request=request.change_request,
        summary=document.summary,
        reissued_by=judged.reissued_by,
        reissues=judged.reissues,
    )


async def _for_undoing(
    connection: Connection, context: Context, request: LoadRequest, situation: Situation
) -> Authority:
    bad = await _bad(connection, context, request, situation)
    if (request.kind is Kind.WITHDRAW) != (request.checksum is None):
        raise NotPossibleError("a rollback needs the checksum to restore; a withdraw must have none")
    version: str | None = None
    signatures: tuple[str, ...] = ()
    signatures_at: datetime | None = None
    if request.checksum is not None:
        if request.checksum == bad.checksum:
            raise NotPossibleError("a rollback restores another document than the one it undoes")
        first = await release_queries.first_confirmed(connection, context.environment, request.checksum)
        if first is None:
            raise NotPossibleError(
                f"{request.checksum} was never confirmed; a rollback restores only what was",
                hint="constitution releases",
            )
        harmful = await find(connection, context, request.checksum, None)  # it was confirmed: its rules are not asked
        if harmful is not None:
            raise NotPossibleError(
                f"{harmful.version} is not restored: this document is poisoned",
                issues=[harmful.issue()],
                hint="constitution releases  # choose another one that was confirmed",
            )
        stored = await artifacts.get(connection, context.environment, request.checksum)
        version = stored.version
        signatures_at = await _live_since(connection, context, first, request.checksum)
        signatures = await _signatures(context, stored, signatures_at, request.kind)
    granted = await preauthorisation(connection, context, bad, situation.moment)
    if granted is not None and granted == (request.kind, request.checksum):
        await undo_rules.require_order(
            connection, context, bad, request.update_id, at=situation.leased_at, now=situation.moment
        )
        approvers, approvals = bad.approvers, bad.approvals
    else:
        thresholds = context.trust.thresholds
        threshold = thresholds.rollback if request.kind is Kind.ROLLBACK else thresholds.withdraw
        binding = Binding(
            kind=request.kind,
            environment=context.environment,
            checksum=request.checksum,
            rollback_of=bad.generation,
        )
        decisions = await _decisions(context, request, situation.moment)
        approvers, approvals = _approved(
            context, decisions, binding, threshold=threshold, author=None, moment=situation.moment
        )
    what = "withdrawn" if request.checksum is None else f"rolled back to {version}"
    return Authority(
        version=version,
        signatures=signatures,
        signatures_at=signatures_at,
        approvers=approvers,
        approvals=approvals,
        evidence=None,
        change_request=request.change_request,
        summary=f"generation {bad.generation} ({bad.version}) {what}: {request.reason}",
    )


async def _bad(connection: Connection, context: Context, request: LoadRequest, situation: Situation) -> Release:
    if request.rollback_of is None:
        raise NotPossibleError(f"a load of kind {request.kind} names in rollback_of the generation it undoes")
    bad = await releases.read_release(connection, context.environment, request.rollback_of)
    if bad is None:
        raise NotFoundError(f"there is no generation {request.rollback_of}")
    if situation.current is None or {p.generation for p in situation.pointers.values()} != {bad.generation}:
        live = "nothing" if situation.current is None else f"generation {situation.current.generation}"
        raise NotCurrentError(
            f"generation {bad.generation} is not what is live; {live} is",
            hint="constitution current",
            current=None if situation.current is None else {"generation": situation.current.generation},
        )
    return bad


async def preauthorisation(
    connection: Connection, context: Context, bad: Release, moment: datetime
) -> tuple[Kind, str | None] | None:
    """Return the one undoing that the approvals of an update authorise still, as (kind, checksum to restore).

    The approvals are those that the update's own signed statement lists, so a row changed in the database
    authorises nothing. None once the update was confirmed for 72 h, or a later release was confirmed.

    Raises:
        UntrustedError: the stored statement or approvals are not what was signed.
    """
    if bad.kind is not Kind.UPDATE:
        return None
    confirmed_at = await release_queries.confirmed_at(connection, context.environment, bad.generation)
    if confirmed_at is not None and moment - confirmed_at > approval_rules.PREAUTHORISED_FOR:
        return None
    if await release_queries.later_confirmed(connection, context.environment, bad.generation) is not None:
        return None
    predicate = await asyncio.to_thread(approved, bad, context.trust)
    if predicate is None:  # then it takes a quorum of its own
        return None
    if predicate.previous is None:
        return Kind.WITHDRAW, None
    return Kind.ROLLBACK, predicate.previous.checksum


async def _live_since(connection: Connection, context: Context, generation: int, checksum: str) -> datetime:
    """Return when a document went live in this generation, as its signed statement says: a row proves nothing.

    Its signatures were good then; a key that has expired since does not prevent the rollback.
    """
    release = await releases.read_release(connection, context.environment, generation)
    if release is None:
        raise NotFoundError(f"there is no generation {generation}")
    predicate = verify_release(release.statement, context.trust)
    if (predicate.environment, predicate.generation, predicate.checksum) != (context.environment, generation, checksum):
        raise UntrustedError(f"the stored statement of generation {generation} is that of another release")
    return predicate.signatures_at or predicate.effective_at


async def _signatures(
    context: Context, stored: artifacts.StoredArtifact, moment: datetime, kind: Kind, *, first: bool = False
) -> tuple[str, ...]:
    report = await artifacts.verify(context, stored.document, stored.signatures, moment)
    report.require(context.trust.thresholds.for_document(kind, first=first))
    return tuple(checksum_of(signature) for signature in stored.signatures)


async def _author(connection: Connection, context: Context, request: LoadRequest) -> str:
    if request.change_request is None:
        raise NotPossibleError("an update names its change request", hint="have its author file one for this checksum")
    record = await change_requests.get(connection, context.environment, request.change_request)
    if record.request.checksum != request.checksum:
        raise NotPossibleError(
            f"{request.change_request} asks for {record.request.checksum}, not for {request.checksum}"
        )
    return record.request.author


def _document_binding(context: Context, request: LoadRequest, document: Constitution, plan: Plan | None) -> Binding:
    return Binding(
        kind=request.kind,
        environment=context.environment,
        checksum=request.checksum,
        version=document.version,
        previous=document.previous,
        change_request=request.change_request,
        evidence=request.test_evidence,
        plan=plan,
    )


def _plan(decisions: _Decisions, request: LoadRequest, moment: datetime) -> Plan:
    """Return the plan that the board signed for this very update; the caller does not supply one.

    Raises:
        NotApprovedError: no approval is for this update in these rings, or its time has not come.
    """
    plans = [predicate.plan for _, predicate, _ in decisions.verified if predicate.decision is BoardDecision.APPROVE]
    plan = next((plan for plan in plans if plan is not None and plan.update_id == request.update_id), None)
    if plan is None:
        others = sorted({plan.update_id for plan in plans if plan is not None})
        raise NotApprovedError(
            f"no approval is for update {request.update_id}; {', '.join(others) or 'none'} was approved",
            issues=decisions.issues,
            hint="constitution status  # lists the open runs; the members named approve theirs",
        )
    if sorted(plan.rings) != sorted(request.rings):
        raise NotApprovedError(
            f"the board approved the rings {', '.join(plan.rings)}, not {', '.join(request.rings)}",
            hint=f"load what was approved: {', '.join(plan.rings)}",
        )
    if plan.not_before is not None and plan.not_before > moment:
        raise NotApprovedError(
            f"the board approved this for {plan.not_before.isoformat()} at the earliest; it is {moment.isoformat()}",
            hint="wait until then, or have the board approve another time",
        )
    return plan


def _approved(
    context: Context,
    decisions: _Decisions,
    binding: Binding,
    *,
    threshold: int,
    author: str | None,
    moment: datetime,
) -> tuple[tuple[str, ...], tuple[Envelope, ...]]:
    """Return the approvers and their envelopes; approvals that do not count are left out."""
    try:
        approvers = approval_rules.count(
            [(person, predicate) for person, predicate, _ in decisions.verified],
            binding=binding,
            trust=context.trust,
            threshold=threshold,
            author=author,
            now=moment,
        )
    except NotApprovedError as error:
        raise NotApprovedError(error.message, issues=[*error.issues, *decisions.issues], hint=error.hint) from error
    counted = [
        envelope
        for person, predicate, envelope in decisions.verified
        if person in approvers and predicate.decision is BoardDecision.APPROVE and not binding.differences(predicate)
    ]
    return approvers, tuple(counted)


async def _decisions(context: Context, request: LoadRequest, moment: datetime) -> _Decisions:
    if len(request.approvals) > MAX_APPROVALS:
        raise NotApprovedError(f"{len(request.approvals)} approvals were sent; at most {MAX_APPROVALS} are read")
    return await asyncio.to_thread(_verified, context.trust, request.approvals, moment)


def _verified(trust: TrustPolicy, envelopes: Sequence[Envelope], moment: datetime) -> _Decisions:
    found = _Decisions([], [])
    for index, envelope in enumerate(envelopes):
        try:
            found.verified.append((*verify_approval(envelope, trust, moment), envelope))
        except UntrustedError as error:
            found.issues.append(Issue(code="approval", path=f"/approvals/{index}", message=error.message))
    return found
