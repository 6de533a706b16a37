"""The state of a consumer at one moment, and the denials that need no rule."""

from dataclasses import dataclass
from typing import Literal

from constitution.policy.evaluation import Decision, EvaluationRequest, PolicyDecision
from services.following.obeyed import Obeyed


@dataclass(frozen=True, slots=True)
class Caution:
    """The action when the constitution in hand may no longer be the right one.

    Attributes:
        stale: ``degrade`` keeps deciding by the last good document, ``deny`` denies everything.
        expired: ``enforce`` keeps deciding by the expired document, ``deny`` denies everything.
    """

    stale: Literal["degrade", "deny"]
    expired: Literal["enforce", "deny"]


@dataclass(frozen=True, slots=True)
class View:
    """The obeyed release and its state, at one moment."""

    obeyed: Obeyed
    stale: bool
    expired: bool

    def denial(self, caution: Caution) -> PolicyDecision | None:
        """Return the denial that needs no rule, or None when the rules decide."""
        if self.obeyed.policy is None:
            return _deny("no_constitution", "There is no constitution in force: nothing is allowed.")
        if self.stale and caution.stale == "deny":
            return _deny("stale", "The constitution could not be confirmed for too long: nothing is allowed.")
        if self.expired and caution.expired == "deny":
            return _deny("expired", "The constitution has expired: nothing is allowed.")
        return None

    def decide(self, request: EvaluationRequest, caution: Caution) -> PolicyDecision:
        """Return the decision about a request: a denial of its own, or what the rules say."""
        denial = self.denial(caution)
        if denial is not None or self.obeyed.policy is None:
            return denial or _deny("no_constitution", "There is no constitution in force: nothing is allowed.")
        return self.obeyed.policy.evaluate(request)


def _deny(reason: Literal["no_constitution", "stale", "expired"], message: str) -> PolicyDecision:
    return PolicyDecision(decision=Decision.DENY, severity="critical", message=message, reason=reason)
