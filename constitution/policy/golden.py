"""Golden vectors: requests with the decision that they must get, as data that policy authors write.

One JSON file: ``{"vectors": [{"name", "request", "decision", "rule"?, "reason"?}]}``. They run against the rules here,
and against every consumer over HTTP; both must say the same. A vector without ``rule`` does not ask which one decided.
"""

from typing import Literal

from pydantic import Field, ValidationError

from constitution import strict_json
from constitution.environment import issues_of
from constitution.errors import InvalidRequestError
from constitution.model import Model
from constitution.policy.evaluation import Decision, EvaluationRequest, PolicyDecision
from constitution.policy.rules import Policy


class Vector(Model):
    """One request and what must come of it."""

    name: str
    request: EvaluationRequest
    decision: Decision
    rule: str | None = None
    reason: Literal["rule", "default", "budget"] | None = None

    def mismatch(self, actual: PolicyDecision) -> str | None:
        """Return in words how a decision differs from this vector, or None if it does not."""
        wrong = []
        if actual.decision is not self.decision:
            wrong.append(f"decided {actual.decision}, not {self.decision}")
        if self.rule is not None and actual.rule != self.rule:
            wrong.append(f"by rule {actual.rule}, not {self.rule}")
        if self.reason is not None and actual.reason != self.reason:
            wrong.append(f"for reason {actual.reason}, not {self.reason}")
        return f"{self.name}: {', '.join(wrong)}" if wrong else None


class _File(Model):
    vectors: tuple[Vector, ...] = Field(min_length=1)


def load(data: bytes) -> tuple[Vector, ...]:
    """Read a file of vectors.

    Raises:
        InvalidRequestError: it is no such file, or has no vector and would prove nothing.
    """
    try:
        vectors = _File.model_validate(strict_json.read(data)).vectors
    except strict_json.StrictJsonError as error:
        raise InvalidRequestError(f"the golden vectors cannot be read: {error}", issues=[error.issue]) from error
    except ValidationError as error:
        raise InvalidRequestError("the golden vectors are not valid", issues=issues_of(error)) from error
    names = [vector.name for vector in vectors]
    if len(set(names)) != len(names):
        raise InvalidRequestError("two golden vectors have the same name")
    return vectors


def run(policy: Policy, vectors: tuple[Vector, ...]) -> tuple[str, ...]:
    """Return every mismatch in words; empty if the policy decides as all vectors say."""
    found = (vector.mismatch(policy.evaluate(vector.request)) for vector in vectors)
    return tuple(text for text in found if text is not None)
