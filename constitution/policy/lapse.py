"""What decides when a document can no longer be taken at its word: it has expired, or nobody confirms that it is live.

The signed document says what then holds (``on_expiry``, after ``expiry_grace``; ``on_stale``). A process may be
stricter by its own setting, never looser. Every consumer decides by this module: policy engine, orchestrator,
constitution_follow. Pure: the time is handed in.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from constitution.policy.evaluation import Decision, PolicyDecision

MAX_GRACE = timedelta(days=30)  # longer would be another date of expiry; as in schema/v1.json
WARN_DAYS = (30, 7, 1)  # before a document expires, people are told: time enough to draft, approve and watch the next


class OnLapse(StrEnum):
    """What then holds, mildest first."""

    ENFORCE = "enforce"  # the rules, as if nothing were
    REQUIRE_APPROVAL = "require_approval"  # the rules, but what they allow takes a person's approval
    DENY = "deny"  # nothing is allowed


STRICTNESS = tuple(OnLapse)
_WHY = {
    "expired": "The constitution has expired",
    "stale": "The constitution could not be confirmed for too long",
}


def strictest(actions: Iterable[OnLapse]) -> OnLapse:
    """Return the strictest of several; of none: enforce."""
    return max(actions, key=STRICTNESS.index, default=OnLapse.ENFORCE)


@dataclass(frozen=True, slots=True)
class Caution:
    """A process's own setting: at the least so strict it is, whatever the document says.

    Attributes:
        stale: once there was no contact for too long.
        expired: from the very moment that the document expires; no grace softens it.
    """

    stale: OnLapse = OnLapse.ENFORCE
    expired: OnLapse = OnLapse.ENFORCE


@dataclass(frozen=True, slots=True)
class Terms:
    """What a signed document says about its own end.

    Attributes:
        expires_at: aware.
        grace: for so long after it the rules hold on.
        on_expiry: what holds after that.
        on_stale: what holds while nobody confirms that the document is live.
    """

    expires_at: datetime
    grace: timedelta
    on_expiry: OnLapse
    on_stale: OnLapse

    def expired(self, now: datetime) -> bool:
        """Whether the document has expired, in its grace or after it."""
        return now >= self.expires_at

    def lapse(self, caution: Caution, *, now: datetime, stale: bool) -> "Lapse | None":
        """Return what holds beside the rules at this moment; None: the rules alone.

        Args:
            caution: of the process.
            now: aware.
            stale: nobody has confirmed for too long that the document is live.
        """
        found: list[Lapse] = []
        if stale:
            found.append(Lapse(strictest((self.on_stale, caution.stale)), "stale"))
        if self.expired(now):
            signed = self.on_expiry if now - self.expires_at >= self.grace else OnLapse.ENFORCE
            found.append(Lapse(strictest((signed, caution.expired)), "expired"))
        strict = max(found, key=lambda lapse: STRICTNESS.index(lapse.action), default=None)
        return None if strict is None or strict.action is OnLapse.ENFORCE else strict


@dataclass(frozen=True, slots=True)
class Lapse:
    """What holds beside the rules, and why."""

    action: OnLapse
    reason: Literal["expired", "stale"]

    def denial(self) -> PolicyDecision | None:
        """Return the denial that needs no rule, or None."""
        if self.action is not OnLapse.DENY:
            return None
        return PolicyDecision(
            decision=Decision.DENY,
            severity="critical",
            message=f"{_WHY[self.reason]}: nothing is allowed.",
            reason=self.reason,
        )

    def over(self, decision: PolicyDecision) -> PolicyDecision:
        """Return what becomes of a decision of the rules: never anything milder."""
        if self.action is OnLapse.DENY:
            return self.denial() or decision
        if decision.decision is not Decision.ALLOW:
            return decision
        return decision.model_copy(
            update={
                "decision": Decision.REQUIRE_APPROVAL,
                "severity": "critical",
                "message": f"{_WHY[self.reason]}: a person must approve this.",
                "reason": self.reason,
            }
        )


def days_warned(expires_at: datetime, now: datetime) -> int | None:
    """Return the last warning that is due: 30, 7 or 1 days before, 0 once it has expired; None: none yet."""
    left = expires_at - now
    if left <= timedelta(0):
        return 0
    return min((days for days in WARN_DAYS if left <= timedelta(days=days)), default=None)
