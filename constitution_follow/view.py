"""The state of a consumer at one moment, and what decides then: rules, the document's end, the process's caution."""

from dataclasses import dataclass
from datetime import datetime

from constitution.policy.evaluation import Decision, EvaluationRequest, PolicyDecision
from constitution.policy.lapse import Caution, Lapse
from constitution_follow.obeyed import Obeyed

_NONE = PolicyDecision(
    decision=Decision.DENY,
    severity="critical",
    message="There is no constitution in force: nothing is allowed.",
    reason="no_constitution",
)


@dataclass(frozen=True, slots=True)
class View:
    """The obeyed release and its state, at one moment."""

    obeyed: Obeyed
    stale: bool
    now: datetime

    @property
    def expired(self) -> bool:
        """Whether the document has expired."""
        return self.obeyed.terms is not None and self.obeyed.terms.expired(self.now)

    def lapse(self, caution: Caution) -> Lapse | None:
        """Return what holds beside the rules; None: the rules alone."""
        terms = self.obeyed.terms
        return None if terms is None else terms.lapse(caution, now=self.now, stale=self.stale)

    def denial(self, caution: Caution) -> PolicyDecision | None:
        """Return the denial that needs no rule, or None when the rules decide."""
        if self.obeyed.policy is None:
            return _NONE
        lapse = self.lapse(caution)
        return None if lapse is None else lapse.denial()

    def over(self, decision: PolicyDecision, caution: Caution) -> PolicyDecision:
        """Return what becomes of a decision of the rules at this moment; never anything milder."""
        lapse = self.lapse(caution)
        return decision if lapse is None else lapse.over(decision)

    def decide(self, request: EvaluationRequest, caution: Caution) -> PolicyDecision:
        """Return the decision about a request: a denial of its own, or what the rules say."""
        denial = self.denial(caution)
        if denial is not None or self.obeyed.policy is None:
            return denial or _NONE
        return self.over(self.obeyed.policy.evaluate(request), caution)
