"""A board member decides: look first, then sign. The content is read from sources that the signer can check.

The run under decision only says *which* bytes, change request and evidence it is about. Everything shown comes from
constitution-service by checksum (so the bytes are those), is checked against the signer's own trust policy and own
environment, and the signature binds exactly that. A forged run or service can at most be refused.
"""

import json as json_text
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from constitution.checksum import checksum_of
from constitution.environment import Strategy, issues_of
from constitution.errors import ConflictError, NotApprovedError, NotYetError, UntrustedError
from constitution.messages import DecideMessage, Status
from constitution.release import Kind
from constitution.trust.approval import BoardDecision
from constitution.trust.approval_rules import time_refusal
from constitution.trust.plan import Plan
from constitution.trust.trust_policy import TrustPolicy
from constitution_client.connections import run_named, runs, service_client, trust_policy, workflow_id_of
from constitution_client.output import one_line, progress, result
from constitution_client.prompting import confirm
from constitution_client.review import Proposal, Review
from constitution_client.settings import ClientSettings, UsageError, settings
from constitution_client.signing import Signing, SigningOptions
from signatures.statements import IN_TOTO, approval_bytes, verify_approval


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The command line of ``approve`` and ``deny``."""

    decision: BoardDecision
    run: str
    signing: SigningOptions
    reason: str | None  # None: what the statement says that was signed elsewhere, else "approved"
    checksum: str | None
    evidence: str | None
    update_id: str | None
    rollback_of: int | None
    valid_days: int
    trust: Path | None
    print_only: bool
    yes: bool
    wait: bool = True  # for the regression gate, whose evidence is what is signed


async def decide(order: Order, json: bool | None) -> None:
    """Show, ask, sign, send (or print).

    Raises:
        UntrustedError: the key is no board member's, or what would be approved does not verify.
        NotApprovedError: the signer wrote the change request themself; or what they signed elsewhere has expired.
        EvidenceError: the evidence is of other bytes, or reports a failure.
        NotYetError: the regression gate has not finished, and it is not waited for.
        ConflictError: the run has ended.
        MessageRefusedError: the run refused the decision, and says why.
    """
    configured = settings()
    policy = trust_policy(configured, order.trust)
    signing = Signing.begin(order.signing, policy, "board")
    now = datetime.now(UTC)
    stated = signing.stated(lambda envelope: verify_approval(envelope, policy, now))
    if stated is not None and (late := time_refusal(stated.issued_at, stated.expires_at, now)) is not None:
        raise NotApprovedError(f"the signed statement {late}", hint="write a new one with --print-statement")
    workflow_id, proposal = await _proposal(order, configured, policy)
    async with service_client(configured) as service:
        review = Review(service, policy, signing, proposal, lenient=order.decision is BoardDecision.DENY)
        predicate = await review.predicate(order.decision, order.reason, timedelta(days=order.valid_days), stated)
    payload = approval_bytes(predicate)
    signing.check(payload, IN_TOTO)
    for line in review.lines:
        progress(one_line(line))
    what = "approval" if order.decision is BoardDecision.APPROVE else "denial"
    facts = {"workflow_id": workflow_id, "decision": order.decision.value}
    if (question := signing.asks(what)) is not None:
        confirm(question, yes=order.yes)
    envelope = signing.envelope(payload, IN_TOTO, json, **facts)
    if envelope is None:
        return
    message = DecideMessage(approval=envelope)
    if order.print_only:
        result(message.model_dump(mode="json"), [message.model_dump_json()], json)
        progress(f"send it to {workflow_id} under the name decide, as update or signal: its input is what was printed")
        return
    # The digest of what is sent as update id: sending the same decision twice runs it once.
    digest = checksum_of(json_text.dumps(envelope.model_dump(mode="json"), sort_keys=True).encode())
    answer = await (await runs(configured)).send(workflow_id, "decide", message, update_id=digest)
    person = signing.person.id if signing.person else ""
    result(
        {"workflow_id": workflow_id, "person": person, "decision": order.decision.value, "answer": answer},
        [f"{order.decision.value}: {answer}", f"next: constitution watch {shlex.quote(workflow_id)}"],
        json,
    )


async def _proposal(order: Order, configured: ClientSettings, policy: TrustPolicy) -> tuple[str, Proposal]:
    workflow_id = workflow_id_of(order.run, configured)
    if order.rollback_of is not None:
        kind = Kind.ROLLBACK if order.checksum else Kind.WITHDRAW
        return workflow_id, Proposal(
            kind=kind, checksum=order.checksum, change_request=None, evidence=None, rollback_of=order.rollback_of
        )
    if order.evidence is not None:
        if "/" in order.run or order.checksum is None:
            raise UsageError("deciding without Temporal takes CHANGE_REQUEST --checksum … --evidence …")
        return workflow_id, Proposal(
            kind=Kind.UPDATE,
            checksum=order.checksum,
            change_request=order.run,
            evidence=order.evidence,
            plan=None if order.update_id is None else _by_hand(order.update_id, configured),
        )
    connected, workflow_id = await run_named(order.run, configured)
    status = await connected.status(workflow_id)
    if order.wait and status.workflow != "ConstitutionRollback":
        from constitution_client.follow import until_ready

        status = await until_ready(
            connected, workflow_id, lambda state: _missing(state, order.decision) is None, "the gate"
        )
    if status.environment not in {None, policy.environment}:
        raise UntrustedError(
            f"{workflow_id} is about {status.environment}, and this trust policy about {policy.environment}",
            hint="give the trust policy of that environment with --trust",
        )
    if status.workflow == "ConstitutionRollback":
        return workflow_id, _rollback_proposal(workflow_id, status)
    missing = _missing(status, order.decision)
    if missing is not None and status.outcome is not None:
        raise ConflictError(
            f"{workflow_id} has ended, {status.outcome.value}, and {missing}",
            hint=f"constitution status {shlex.quote(workflow_id)}",
        )
    if missing is not None or status.checksum is None or status.change_request is None:
        raise NotYetError(f"{workflow_id} {missing}", hint=f"constitution watch {shlex.quote(workflow_id)}")
    return workflow_id, Proposal(
        kind=Kind.UPDATE,
        checksum=status.checksum,
        change_request=status.change_request,
        evidence=status.evidence,
        plan=status.plan,
    )


def _missing(status: Status, decision: BoardDecision) -> str | None:
    """Return the facts that an update's status still lacks for a decision."""
    if status.checksum is None or status.change_request is None:
        return "has not said yet what it is about"
    if decision is BoardDecision.APPROVE and (status.evidence is None or status.plan is None):
        return "has no evidence yet: the regression gate has not finished"
    return None


def _by_hand(update_id: str, configured: ClientSettings) -> Plan:
    """Return the plan of ``constitution load``: everywhere, at once, and watched by nobody."""
    try:
        return Plan(
            update_id=update_id,
            strategy="by-hand",
            watch=Strategy(watch_seconds=0),
            rings=configured.environment().rings(),
        )
    except ValidationError as error:
        raise UsageError("--update-id must be a lower-case UUID: uuidgen makes one", issues=issues_of(error)) from error


def _rollback_proposal(workflow_id: str, status: Status) -> Proposal:
    """Read which release a rollback undoes from its workflow id; the review compares it with the release itself."""
    last = workflow_id.rpartition("/")[2]
    if not (last.isascii() and last.isdigit()):
        raise UsageError(
            f"{workflow_id} does not name the release that it undoes",
            hint="name it: --rollback-of with the generation, --checksum with what to restore",
        )
    # A withdrawal that is undone has no document: then the board is asked, and no checksum is named.
    asked = any(step.name == "board" and step.state == "waiting" for step in status.steps)
    if status.previous is None and not asked:
        raise NotYetError(
            f"{workflow_id} has not said yet what it undoes", hint=f"constitution status {shlex.quote(workflow_id)}"
        )
    return Proposal(
        kind=Kind.ROLLBACK if status.checksum else Kind.WITHDRAW,
        checksum=status.checksum,
        change_request=None,
        evidence=None,
        rollback_of=int(last),
        undone=status.previous,
    )
