"""Which decisions count, and whether they suffice. signatures/statements.py has proved their signers before.

Counted are distinct board members, whatever keys they use. Author and approver are different people. A decision counts
only for exactly what it names, in its time. One denial by a board member stops the release, whatever the others decide.
A denial on other evidence, or one that has expired, stops it too: that member has not approved these bytes since.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from constitution.errors import Issue, NotApprovedError
from constitution.release import Kind, Previous
from constitution.trust.approval import BOARD_ORDERS, ApprovalPredicate, BoardDecision, OrderPredicate
from constitution.trust.plan import Plan
from constitution.trust.trust_policy import TrustPolicy

PREAUTHORISED_FOR = timedelta(hours=72)  # after its confirmation, an update's approvals authorise its undo for so long
DENIAL_MAY_DIFFER = frozenset({"evidence", "plan", "version", "previous"})
"""A denial is about these bytes for this purpose, on any evidence and plan, and of any age."""
CLOCK_SKEW = timedelta(minutes=5)  # a signer's clock may be this far ahead of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The facts that a decision must name.

    ``version`` and ``previous`` are compared for kind update only: the checksum says the same, and an undoing has no
    document of its own to take them from.
    """

    kind: Kind
    environment: str
    checksum: str | None
    version: str | None = None
    previous: Previous | None = None
    change_request: str | None = None
    evidence: str | None = None
    plan: Plan | None = None
    rollback_of: int | None = None

    def differences(self, predicate: ApprovalPredicate) -> tuple[str, ...]:
        """Return the names of the fields in which a decision is about something else."""
        names = ["kind", "environment", "checksum", "change_request", "evidence", "rollback_of", "plan"]
        if self.kind is Kind.UPDATE:
            names += ["version", "previous"]
        return tuple(name for name in names if getattr(self, name) != getattr(predicate, name))


def count(
    approvals: Sequence[tuple[str, ApprovalPredicate]],
    *,
    binding: Binding,
    trust: TrustPolicy,
    threshold: int,
    author: str | None,
    now: datetime,
) -> tuple[str, ...]:
    """Return the ids of the board members whose approval counts, in the order of the trust policy.

    Args:
        approvals: (person id, decision) as `signatures.statements.verify_approval` gives them.
        binding: what is being decided.
        trust: the pinned trust policy.
        threshold: how many distinct people it takes.
        author: who asked for it and therefore cannot approve; None where nobody did.
        now: aware.

    Raises:
        NotApprovedError: denied, or too few; with the reason of each decision that does not count, and who could
            still approve.
    """
    board = trust.with_role("board")
    approvers: set[str] = set()
    issues: list[Issue] = []
    for position, (person, predicate) in enumerate(approvals):
        reason = _refusal(person, predicate, board, binding, author, now)
        if predicate.decision is BoardDecision.DENY and person in board and _denies(predicate, binding):
            raise NotApprovedError(
                f"{person} denied: {predicate.reason}", hint="a new change request can be decided anew"
            )
        if reason is not None:
            issues.append(Issue(code="approval", path=f"/approvals/{position}", message=f"{person}: {reason}"))
        elif predicate.decision is BoardDecision.APPROVE:
            approvers.add(person)
    if len(approvers) >= threshold:
        return tuple(person for person in board if person in approvers)
    missing = threshold - len(approvers)
    could = [person for person in board if person not in approvers and person != author]
    raise NotApprovedError(
        f"approved by {', '.join(p for p in board if p in approvers) or 'nobody'}; "
        f"{missing} more of {', '.join(could) or 'nobody who is left'} must approve",
        issues=issues,
        hint="constitution status  # lists the open runs; the members named approve theirs",
    )


def _denies(predicate: ApprovalPredicate, binding: Binding) -> bool:
    return set(binding.differences(predicate)) <= DENIAL_MAY_DIFFER


def _refusal(  # noqa: PLR0917 - private, called once
    person: str,
    predicate: ApprovalPredicate,
    board: tuple[str, ...],
    binding: Binding,
    author: str | None,
    now: datetime,
) -> str | None:
    if person not in board:
        return "is no member of the board"
    if person == author:
        return "is the author, who cannot approve"
    differences = binding.differences(predicate)
    if differences:
        return f"decided on something else: {', '.join(differences)}"
    return time_refusal(predicate.issued_at, predicate.expires_at, now)


def time_refusal(issued_at: datetime, expires_at: datetime, now: datetime) -> str | None:
    """Return why a decision or order does not count at a time; None: it does."""
    try:
        if issued_at > now + CLOCK_SKEW:
            return f"is dated in the future: {issued_at.isoformat()}"
        if expires_at <= now:
            return f"expired at {expires_at.isoformat()}"
    except TypeError:
        return "says its times without a time zone"
    return None


def check_order(
    person: str,
    predicate: OrderPredicate,
    *,
    trust: TrustPolicy,
    environment: str,
    workflow_id: str,
    update_id: str,
    order: str,
    step: str | None,
    now: datetime,
) -> None:
    """Demand that a signed order is of somebody who may give it, for this run and step, in its time.

    Raises:
        NotApprovedError: it is not; with every reason.
    """
    issues = []
    board = order in BOARD_ORDERS
    if person not in trust.with_role("board" if board else "operator"):
        whom = "member of the board" if board else "operator"
        issues.append(Issue(code="order", path="/person", message=f"{person} is no {whom}"))
    expected = {
        "environment": environment,
        "workflow_id": workflow_id,
        "update_id": update_id,
        "order": order,
        "step": step,
    }
    for name, value in expected.items():
        found = getattr(predicate, name)
        if found != value:
            issues.append(Issue(code="order", path=f"/{name}", message=f"says {found!r}, not {value!r}"))
    untimely = time_refusal(predicate.issued_at, predicate.expires_at, now)
    if untimely is not None:
        issues.append(Issue(code="order", path="/expires_at", message=untimely))
    if issues:
        raise NotApprovedError(f"the order of {person} does not count here", issues=issues)
