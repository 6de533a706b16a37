"""What holds for every constitution, whatever its rules."""

from policy.cases import Invariant
from policy.drafts import Draft


def test_invariant(draft: Draft, invariant: Invariant) -> None:
    broken = []
    for request in invariant.requests:
        answer = draft.policy.evaluate(request)
        if answer.decision in invariant.never:
            asked = request.model_dump(mode="json", exclude_defaults=True, exclude={"user", "time"})
            asked["prompt"] = request.prompt[:40]
            broken.append(f"{answer.decision.value} by {answer.rule or answer.reason} of {asked}")
    assert not broken, (
        f"{invariant.name}: broken by {len(broken)} of {len(invariant.requests)} requests, "
        f"e.g. {'; '.join(broken[:2])}. Why it must hold: {invariant.why}"
    )
