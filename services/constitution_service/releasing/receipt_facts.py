"""The facts of a receipt: what this service's own records say of a release, each signed part verified again."""

import asyncio
import base64
from dataclasses import dataclass
from datetime import datetime

import structlog

from adapters.postgres import Connection
from constitution.errors import NotFoundError, UntrustedError
from constitution.receipt import (
    AttestationFact,
    ChangeRequestFact,
    DecisionFact,
    OrderFact,
    SignatureFact,
    TargetsFact,
    UndoFact,
    WatchFact,
)
from constitution.release import Envelope, Release, ReleasePredicate
from constitution.trust.attestation import GatePredicate, SyncPredicate
from constitution.trust.trust_policy import TrustPolicy
from services.constitution_service.artifacts import artifacts, change_requests
from services.constitution_service.context import Context
from services.constitution_service.tables import orders, releases
from services.constitution_service.tables import reissues as overrides
from signatures.attestations import Attestation, attestation_kind, verify_attestation
from signatures.dsse import envelope_digest
from signatures.statements import verify_approval, verify_order, verify_release

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Attested:
    """An attestation of an assessor of the trust policy, and when the service took it."""

    envelope: Envelope
    said: Attestation
    at: datetime


async def signatures(
    connection: Connection, context: Context, statement: ReleasePredicate
) -> tuple[SignatureFact, ...]:
    """Return the signature files that the document went live by, and whose each is."""
    if statement.checksum is None:
        return ()
    stored = await artifacts.get(connection, context.environment, statement.checksum)
    at = statement.signatures_at or statement.effective_at
    live = await releases.read_current(connection, context.environment, statement.generation)
    files = [base64.b64decode(text) for text in live.signatures]  # in the order of the statement
    report = await artifacts.verify(context, stored.document, files, at)
    people = {finding.index: finding.person for finding in report.findings if finding.counted}
    return tuple(
        SignatureFact(sha256=digest, person=people.get(number)) for number, digest in enumerate(statement.signatures)
    )


async def change_request(connection: Connection, context: Context, release: Release) -> ChangeRequestFact | None:
    """Return the change request of a release; None where its kind takes none."""
    if release.change_request is None:
        return None
    stored = await change_requests.get(connection, context.environment, release.change_request)
    return ChangeRequestFact(
        id=stored.request.id,
        author=stored.request.author,
        reason=stored.request.reason,
        sha256=envelope_digest(stored.envelope),
    )


async def decisions(context: Context, release: Release) -> tuple[DecisionFact, ...]:
    """Return what the board, or an operator, signed for a release to go live."""
    return await asyncio.to_thread(
        lambda: tuple(_decision(envelope, context.trust, release.effective_at) for envelope in release.approvals)
    )


async def reissues(connection: Connection, context: Context, release: Release) -> list[Envelope]:
    """Return the board's overrides that the release's statement names.

    Raises:
        UntrustedError: the stored statement is not what this service signed.
    """
    named = verify_release(release.statement, context.trust).reissues
    if not named or release.change_request is None:
        return []
    stored = await overrides.of_request(connection, context.environment, release.change_request)
    return [envelope for envelope in stored if envelope_digest(envelope) in named]


async def reissue_facts(context: Context, release: Release, found: list[Envelope]) -> tuple[DecisionFact, ...]:
    """Return who let what was undone as harmful come again."""
    return await asyncio.to_thread(
        lambda: tuple(_decision(envelope, context.trust, release.effective_at) for envelope in found)
    )


def _decision(envelope: Envelope, trust: TrustPolicy, at: datetime) -> DecisionFact:
    digest = envelope_digest(envelope)
    try:
        person, approval = verify_approval(envelope, trust, at)
        return DecisionFact(sha256=digest, person=person, decision=approval.decision.value, reason=approval.reason)
    except UntrustedError:
        try:
            person, order = verify_order(envelope, trust, at)
            return DecisionFact(sha256=digest, person=person, decision=order.order, reason=order.reason)
        except UntrustedError as error:
            _log.warning("decision_does_not_verify", digest=digest, reason=error.message)
            return DecisionFact(sha256=digest, person=None, decision="", reason="")


async def attested(connection: Connection, context: Context, release: Release) -> list[Attested]:
    """Return what assessors signed about a release or its evidence, oldest first; what does not count is left out."""
    rows = await connection.fetch(
        """
        SELECT envelope::text AS envelope, recorded_at FROM attestations
        WHERE environment = $1 AND (generation = $2 OR evidence = $3) ORDER BY position
        """,
        context.environment,
        release.generation,
        release.evidence,
    )
    found = [(Envelope.model_validate_json(row["envelope"]), row["recorded_at"]) for row in rows]
    return await asyncio.to_thread(lambda: [one for item in found if (one := _attested(*item, context.trust))])


def _attested(envelope: Envelope, at: datetime, trust: TrustPolicy) -> Attested | None:
    try:
        return Attested(envelope, verify_attestation(envelope, trust), at)
    except UntrustedError as error:
        _log.warning("attestation_does_not_count", reason=error.message)
        return None


def attestation_facts(found: list[Attested]) -> tuple[AttestationFact, ...]:
    """Name each attestation."""
    return tuple(
        AttestationFact(
            sha256=envelope_digest(one.envelope),
            what=attestation_kind(one.envelope),
            assessor=one.envelope.signatures[0].keyid,
            at=one.at,
        )
        for one in found
    )


def targets(found: list[Attested], release: Release) -> TargetsFact | None:
    """Return what each target obeyed, by the newest sync that is of this release."""
    for one in reversed(found):
        if isinstance(one.said, SyncPredicate) and not one.said.differences(release):
            return TargetsFact(
                attestation=envelope_digest(one.envelope),
                at=one.at,
                targets=one.said.targets,
                fleet=one.said.fleet,
                discovered=one.said.discovered,
            )
    return None


def watch(found: list[Attested], release: Release) -> WatchFact | None:
    """Return what the newest watch of this release came to."""
    for one in reversed(found):
        if not isinstance(one.said, (GatePredicate, SyncPredicate)) and not one.said.differences(release):
            return WatchFact(
                attestation=envelope_digest(one.envelope),
                evidence=one.said.evidence,
                verdict=one.said.verdict,
                decided_at=one.said.decided_at,
            )
    return None


async def ordered(connection: Connection, context: Context, release: Release) -> list[orders.OrderRow]:
    """Return the orders that the runs of a release obeyed, oldest first; a signed one must still verify."""
    rows = await orders.of_update(connection, context.environment, release.update_id)
    return await asyncio.to_thread(lambda: [row for row in rows if _counts(row, context.trust)])


def _counts(row: orders.OrderRow, trust: TrustPolicy) -> bool:
    if row.envelope is None:
        return True
    try:
        person, said = verify_order(row.envelope, trust, row.record.accepted_at)
    except UntrustedError as error:
        _log.warning("order_does_not_verify", digest=row.record.digest, reason=error.message)
        return False
    return (person, said.order) == (row.record.person, row.record.order)


def order_facts(rows: list[orders.OrderRow]) -> tuple[OrderFact, ...]:
    """Return each order that a run obeyed, oldest first."""
    return tuple(
        OrderFact(
            sha256=None if row.envelope is None else envelope_digest(row.envelope),
            person=row.record.person,
            verb=row.record.order,
            step=row.record.step,
            reason=row.record.reason,
            at=row.record.accepted_at,
        )
        for row in rows
    )


async def undoes(connection: Connection, context: Context, release: Release) -> UndoFact | None:
    """Return the release that this one undid, and why."""
    if release.rollback_of is None:
        return None
    bad = await releases.read_release(connection, context.environment, release.rollback_of)
    if bad is None:
        raise NotFoundError(f"there is no generation {release.rollback_of}")
    return _undo(bad, release)


async def undone_by(connection: Connection, context: Context, release: Release) -> UndoFact | None:
    """Return the release that has undone this one, and why; the newest, should there be several."""
    generation = await connection.fetchval(
        "SELECT max(generation) FROM releases WHERE environment = $1 AND rollback_of = $2",
        context.environment,
        release.generation,
    )
    if generation is None:
        return None
    undo = await releases.read_release(connection, context.environment, generation)
    return None if undo is None else _undo(undo, undo)


def _undo(named: Release, undo: Release) -> UndoFact:
    return UndoFact(
        generation=named.generation,
        kind=named.kind,
        version=named.version,
        checksum=named.checksum,
        reason=undo.reason,
        by=undo.approvers,
    )
