"""What reconciliation finds: the difference between what should be and what is, in words that name the next command.

Pure; shared by the workflow ``ConstitutionReconcile``, its activities, and ``constitution doctor``.
"""

import hashlib
from datetime import datetime, timedelta
from typing import Annotated, Final

from pydantic import Field

from constitution.model import Model
from constitution.trust.trust_policy import TrustPolicy

RECONCILE: Final = "ConstitutionReconcile"
"""Workflow type."""

CODES: Final = (
    "approval-expired",
    "archive-altered",
    "archive-missing",
    "artifact-lost",
    "cannot-look",
    "document-expires",
    "event-unknown",
    "guard-asleep",
    "run-group-closed",
    "lease-by-hand",
    "lease-orphaned",
    "needs-a-person",
    "out-of-band",
    "places-disagree",
    "run-stalls",
    "activity-paused",
    "run-without-outcome",
    "siem-behind",
    "target-behind",
    "target-unreachable",
    "announced-twice",
    "undelivered",
    "unconfirmed",
    "workers-of-two-stacks",
    "root-review",
)
"""Every kind of finding. Stable: alert rules name them (label ``code`` of the metric ``constitution_findings``)."""


DRIFT_WATCH: Final = timedelta(hours=72)
"""How long after a release a target that leaves it counts as drift of that release."""

STACK_DIGITS: Final = 12
"""Hex digits of ``stack_of``: enough to distinguish deployments; nothing is trusted because of them."""

REMEMBERED: Final = timedelta(minutes=10)
"""A finding that comes back within this time is the same one: a target that flaps is not reported every 30 s."""


class ReconcileRequest(Model):
    """Input of ``ConstitutionReconcile``.

    Args:
        repair: repair what is safe to repair; otherwise only report.
        closed_seconds: how long a run must have been closed, or a release been there, before it is judged. Younger
            ones are the business of the run that made them.
    """

    repair: bool = False
    closed_seconds: Annotated[float, Field(ge=1, le=86400)] = 60.0


class Finding(Model):
    """One difference between the expected state and the actual one.

    Args:
        code: one of ``CODES``.
        where: which system, target, run or release; with ``code`` it is what makes two findings the same one.
        message: what is wrong there.
        command: what to type next.
        repaired: what was done about it, if anything.
        stands_for: how many differences of this kind it counts for: beyond the first of them, all others are one.
    """

    code: str
    where: str
    message: str
    command: str
    repaired: str = ""
    stands_for: Annotated[int, Field(ge=1)] = 1

    @property
    def key(self) -> str:
        """What makes it the same finding as the one of 30 s ago."""
        return f"{self.code}/{self.where}"


class Known(Model):
    """A finding that earlier runs have seen; handed from one scheduled run to the next."""

    key: str
    since: datetime
    last_seen: datetime
    audited: bool


class ReconcileReport(Model):
    """Result of ``ConstitutionReconcile``: what was looked at, what was not, and what was found."""

    environment: str
    at: datetime
    repair: bool
    checked: tuple[str, ...]
    findings: tuple[Finding, ...]
    known: tuple[Known, ...] = ()
    unchecked: tuple[str, ...] = ()


def stack_of(trust: TrustPolicy) -> str:
    """Return what identifies a deployment: a digest of the keys that sign its release statements.

    Workers name it in their identity. Those of two deployments on one task queue would take each other's steps.
    """
    keys = "\n".join(sorted(key.public_key for key in trust.services))
    return hashlib.sha256(f"{trust.environment}\n{keys}".encode()).hexdigest()[:STACK_DIGITS]


def remember(before: tuple[Known, ...], findings: tuple[Finding, ...], now: datetime) -> tuple[Known, ...]:
    """Return the findings for the next run, with the times when each was first and last seen.

    Args:
        before: what the run before knew.
        findings: of this run; those that were repaired are over, and not among the result.
        now: aware.
    """
    kept = {known.key: known for known in before if now - known.last_seen <= REMEMBERED}
    for finding in findings:
        if finding.repaired:
            continue
        known = kept.get(finding.key, Known(key=finding.key, since=now, last_seen=now, audited=False))
        kept[finding.key] = known.model_copy(update={"last_seen": now})
    return tuple(kept[key] for key in sorted(kept))
