"""Each rule on its own: it says why, means something of its own, and never ends in an error."""

from policy.cases import load_cases, load_invariants
from policy.drafts import Draft
from policy.hostile import REQUESTS

from constitution.policy.document import Rule
from constitution.policy.evaluation import Decision

MIN_MESSAGE = 12  # characters: shorter is no sentence


def test_default_effect_is_not_allow(draft: Draft) -> None:
    effect = draft.document.default_effect
    assert effect is not Decision.ALLOW, "what no rule names is allowed: default_effect is 'allow'"


def test_rule_says_why(draft: Draft, rule: Rule) -> None:  # noqa: ARG001 - `rule` is one of `draft`
    message = rule.message.strip()
    assert len(message) >= MIN_MESSAGE, (
        f"rule {rule.id!r} tells the agent {rule.message!r}: it needs a sentence of at least {MIN_MESSAGE} characters"
    )


def test_rule_means_something_of_its_own(draft: Draft, rule: Rule) -> None:
    when = "".join(rule.when.split())
    twins = [other.id for other in draft.document.rules if other.id != rule.id and "".join(other.when.split()) == when]
    assert not twins, f"rule {rule.id!r} has the same condition as {', '.join(twins)}: the weaker effect never holds"


def test_rule_never_errs(draft: Draft, rule: Rule) -> None:
    """An error makes a refusal match everybody and a permission nobody: no input may cause one."""
    policy = draft.alone(rule)
    asked = (
        *REQUESTS,
        *(case.request for case in load_cases()),
        *(request for invariant in load_invariants() for request in invariant.requests[:5]),
    )
    erring = [request for request in asked if policy.evaluate(request).errors]
    shown = [request.model_dump(mode="json", exclude_defaults=True) for request in erring[:1]]
    said = f"rule {rule.id!r} ends in a CEL error for {len(erring)} of {len(asked)} requests, e.g. {shown}"
    assert not erring, said[:500]
