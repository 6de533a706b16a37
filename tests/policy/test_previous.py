"""What a draft owes to the constitution that it would replace. Collected only when there is one."""

from policy.cases import load_cases, load_invariants
from policy.drafts import Draft

from constitution.checksum import checksum_of
from constitution.policy.document import parse
from constitution.policy.evaluation import Decision
from constitution.policy.rules import Policy


def test_follows_the_previous_document(draft: Draft) -> None:
    assert draft.previous is not None
    said = draft.document.previous.checksum if draft.document.previous else None
    current = checksum_of(draft.previous)
    assert said == current, f"the draft says that it follows {said}, but {current} is current"


def test_critical_denial_is_not_lifted(draft: Draft) -> None:
    """What was forbidden as critical may be put before a person, but not simply be allowed by the next document."""
    assert draft.previous is not None
    before = Policy.compile(parse(draft.previous))
    asked = [
        *(case.request for case in load_cases()),
        *(request for invariant in load_invariants() for request in invariant.requests),
    ]
    lifted = []
    for request in asked:
        old = before.evaluate(request)
        if old.decision is Decision.DENY and old.severity == "critical":
            new = draft.policy.evaluate(request)
            if new.decision is Decision.ALLOW:
                lifted.append(f"{old.rule} (now allowed by {new.rule})")
    assert not lifted, f"critical denials of the previous constitution are lifted: {', '.join(sorted(set(lifted)))}"
