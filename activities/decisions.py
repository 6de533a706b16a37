"""Counts the board's signed decisions and orders. Pure; the time is handed in.

The rules are constitution/trust/approval_rules.py's. The service counts again, inside the transaction of the load.
"""

from collections.abc import Sequence
from datetime import datetime

from constitution.errors import NotApprovedError, UntrustedError
from constitution.model import Model
from constitution.release import Envelope, Kind
from constitution.trust import approval_rules
from constitution.trust.approval import ApprovalPredicate, BoardDecision, OrderPredicate
from constitution.trust.approval_rules import Binding
from constitution.trust.trust_policy import TrustPolicy
from signatures.statements import verify_approval, verify_order


class DecisionResult(Model):
    """A decision that counts. ``approvers`` are the distinct people so far, this one included if it approves."""

    person: str
    decision: BoardDecision
    reason: str
    expires_at: datetime
    approvers: tuple[str, ...]
    needed: int
    satisfied: bool


def judge_decision(
    envelope: Envelope,
    seen: Sequence[Envelope],
    *,
    binding: Binding,
    trust: TrustPolicy,
    author: str | None,
    needed: int,
    now: datetime,
) -> DecisionResult:
    """Return one decision, counted with those that were accepted before it.

    Raises:
        NotApprovedError: it does not count, and why.
    """
    person, predicate = _verified(envelope, trust, now)
    if predicate.decision is BoardDecision.DENY:
        _require_denial(person, predicate, binding, trust)
        approvers: tuple[str, ...] = ()
    else:
        # Alone first: an envelope that does not count must be refused by name, with any others before it.
        approval_rules.count([(person, predicate)], binding=binding, trust=trust, threshold=1, author=author, now=now)
        approvers = approval_rules.count(
            [(person, predicate), *(_verified(one, trust, now) for one in seen)],
            binding=binding,
            trust=trust,
            threshold=1,
            author=author,
            now=now,
        )
    return DecisionResult(
        person=person,
        decision=predicate.decision,
        reason=predicate.reason,
        expires_at=predicate.expires_at,
        approvers=approvers,
        needed=needed,
        satisfied=len(approvers) >= needed,
    )


def require_approved(
    envelopes: Sequence[Envelope],
    *,
    binding: Binding,
    trust: TrustPolicy,
    author: str | None,
    needed: int,
    now: datetime,
) -> tuple[str, ...]:
    """Return who approved; all decisions together must still suffice.

    Raises:
        NotApprovedError: too few still count; with the reason of each that does not.
    """
    decisions = [_verified(envelope, trust, now) for envelope in envelopes]
    return approval_rules.count(decisions, binding=binding, trust=trust, threshold=needed, author=author, now=now)


def require_signed_denial(
    envelopes: Sequence[Envelope],
    *,
    person: str,
    environment: str,
    checksum: str | None,
    trust: TrustPolicy,
    now: datetime,
) -> ApprovalPredicate:
    """Return a board member's denial among the envelopes: nobody is named without their signature.

    Raises:
        NotApprovedError: there is none.
    """
    for envelope in envelopes:
        try:
            signer, predicate = verify_approval(envelope, trust, now)
        except UntrustedError:
            continue
        about = predicate.environment == environment and (
            predicate.kind is not Kind.UPDATE or predicate.checksum == checksum
        )
        if (
            signer == person
            and predicate.decision is BoardDecision.DENY
            and about
            and person in trust.with_role("board")
        ):
            return predicate
    raise NotApprovedError(f"nothing that was signed here is a denial of {person}'s about {checksum}")


def judge_order(
    envelope: Envelope,
    *,
    trust: TrustPolicy,
    environment: str,
    workflow_id: str,
    update_id: str,
    order: str,
    step: str | None,
    now: datetime,
) -> tuple[str, OrderPredicate]:
    """Return who gives a signed order, and what it says.

    Raises:
        NotApprovedError: it does not count for this run, order and step, and why.
    """
    try:
        person, predicate = verify_order(envelope, trust, now)
    except UntrustedError as error:
        raise NotApprovedError(f"this order does not count: {error.message}", issues=error.issues) from error
    approval_rules.check_order(
        person,
        predicate,
        trust=trust,
        environment=environment,
        workflow_id=workflow_id,
        update_id=update_id,
        order=order,
        step=step,
        now=now,
    )
    return person, predicate


def _verified(envelope: Envelope, trust: TrustPolicy, now: datetime) -> tuple[str, ApprovalPredicate]:
    try:
        return verify_approval(envelope, trust, now)
    except UntrustedError as error:
        raise NotApprovedError(f"this decision does not count: {error.message}", issues=error.issues) from error


def _require_denial(person: str, predicate: ApprovalPredicate, binding: Binding, trust: TrustPolicy) -> None:
    if person not in trust.with_role("board"):
        raise NotApprovedError(f"this decision does not count: {person} is no member of the board")
    about = [name for name in binding.differences(predicate) if name not in approval_rules.DENIAL_MAY_DIFFER]
    if about:
        raise NotApprovedError(f"this decision does not count: it is about something else: {', '.join(about)}")
