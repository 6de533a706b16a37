"""Golden decisions: what this very constitution must say of requests that its authors chose."""

from policy.cases import Case, load_cases
from policy.drafts import Draft

from constitution.policy.document import Rule
from constitution.policy.evaluation import Decision


def test_golden_decision(draft: Draft, case: Case) -> None:
    answer = draft.policy.evaluate(case.request)
    said = f"{answer.decision.value} by {answer.rule or answer.reason}"
    wanted = f"{case.decision.value} by {case.rule or 'default'}"
    assert said == wanted, f"{case.name!r} must be: {wanted}; the draft says: {said}"
    assert answer.errors == 0, f"{case.name!r}: {answer.errors} rules ended in a CEL error"


def test_rule_has_a_case(draft: Draft, rule: Rule) -> None:
    cases = [case for case in load_cases() if case.rule == rule.id and case.applies_to(draft.rules)]
    assert cases, f"no case in policy/cases is keyed to rule {rule.id!r}: add one that it must decide"


def test_rule_decides(draft: Draft, rule: Rule) -> None:
    """A rule that decides none of its own cases is dead: it never matches, or another one always comes first."""
    mine = [case for case in load_cases() if case.rule == rule.id and case.applies_to(draft.rules)]
    decided = [draft.policy.evaluate(case.request) for case in mine]
    said = sorted({f"{answer.decision.value} by {answer.rule or answer.reason}" for answer in decided})
    assert any(answer.rule == rule.id for answer in decided), (
        f"rule {rule.id!r} is dead: it decides none of its {len(mine)} cases; decided instead: {', '.join(said)}"
    )


def test_effect_has_a_case(draft: Draft, effect: Decision) -> None:
    cases = [case for case in load_cases() if case.decision is effect and case.applies_to(draft.rules)]
    assert cases, f"no case in policy/cases expects {effect.value!r}, which this constitution can say"
