"""What a constitution decides: precedence, errors, budget, reporting."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitution.errors import InvalidDocumentError
from constitution.policy import rules as rules_module
from constitution.policy.document import Constitution, parse
from constitution.policy.evaluation import Decision, EvaluationRequest
from constitution.policy.expressions import ENVIRONMENT, BudgetExceededError, compile_expression, run
from constitution.policy.rules import PRECEDENCE, Policy
from tests.machine import count, cpu_seconds
from tests.unit.keyring import document, rule

TIME = datetime(2026, 3, 4, 10, tzinfo=UTC)


def policy(*rules: dict[str, Any], default: str = "deny") -> Policy:
    return Policy.compile(parse(json.dumps(document(rules=list(rules), default_effect=default)).encode()))


def request(**fields: Any) -> EvaluationRequest:
    return EvaluationRequest(**{"tenant": "global", "time": TIME, **fields})


EFFECTS = st.sampled_from(["deny", "require_approval", "allow"])


@given(
    st.lists(
        st.tuples(EFFECTS, st.booleans(), st.sampled_from(["info", "low", "high", "critical"])), min_size=1, max_size=12
    ),
    EFFECTS,
)
def test_precedence_holds_for_every_mixture(given_rules: list[tuple[str, bool, str]], default: str) -> None:
    made = [
        rule(f"r{i}", effect, "true" if matches else "false", severity)
        for i, (effect, matches, severity) in enumerate(given_rules)
    ]
    answer = policy(*made, default=default).evaluate(request())
    matching = [(i, effect, severity) for i, (effect, matches, severity) in enumerate(given_rules) if matches]
    for effect in PRECEDENCE:
        winners = [(i, severity) for i, e, severity in matching if e == effect]
        if winners:
            order = ["critical", "high", "low", "info"]
            first = min(winners, key=lambda winner: (order.index(winner[1]), winner[0]))
            assert (answer.decision, answer.rule, answer.severity, answer.reason) == (
                effect,
                f"r{first[0]}",
                first[1],
                "rule",
            )
            return
    assert (answer.decision, answer.rule, answer.severity, answer.reason) == (default, None, "none", "default")


@pytest.mark.parametrize(
    ("effect", "decision", "decided_by"),
    [("deny", "deny", "r"), ("require_approval", "require_approval", "r"), ("allow", "deny", None)],
)
def test_an_error_matches_where_it_refuses_and_never_where_it_allows(
    effect: str, decision: str, decided_by: str | None
) -> None:
    answer = policy(rule("r", effect, "1 / int(amount) > 0")).evaluate(request(amount=0.0))
    assert (answer.decision, answer.rule, answer.errors) == (decision, decided_by, 1)


def test_an_error_beside_other_rules_of_its_effect_does_not_change_their_answers() -> None:
    made = policy(
        rule("fails", "allow", "1 / int(amount) > 0", "critical"),
        rule("matches", "allow", "tool == 'x'", "low"),
        rule("does-not", "allow", "tool == 'y'", "high"),
    )
    answer = made.evaluate(request(tool="x"))
    assert (answer.decision, answer.rule, answer.errors) == ("allow", "matches", 1)
    assert made.evaluate(request(tool="x", amount=1.0)).errors == 0


def test_every_field_of_the_request_can_be_read() -> None:
    when = (
        "tenant == 'a' && user == 'b' && agent == 'c' && action == 'd' && tool == 'e' && amount == 1.5 && "
        "currency == 'EUR' && data_class == 'f' && prompt == 'g' && time == timestamp('2026-03-04T10:00:00Z')"
    )
    fields = {
        "tenant": "a",
        "user": "b",
        "agent": "c",
        "action": "d",
        "tool": "e",
        "amount": 1.5,
        "currency": "EUR",
        "data_class": "f",
        "prompt": "g",
    }
    made = policy(rule("all", "allow", when))
    assert made.evaluate(request(**fields)).rule == "all"
    for name in fields:
        other = 2.5 if name == "amount" else "zzz"
        assert made.evaluate(request(**{**fields, name: other})).rule is None


def test_comments_in_rules_stay_inside_them() -> None:
    made = policy(rule("a", "deny", "tool == 'x' // ) ], ["), rule("b", "deny", "tool == 'y'"))
    assert made.evaluate(request(tool="y")).rule == "b"


def test_more_rules_than_one_list_expression_holds() -> None:
    many = [rule(f"r{i}", "allow", f"tool == 't{i}'") for i in range(300)]
    made = policy(*many)
    for i in (0, 63, 64, 127, 128, 299):
        assert made.evaluate(request(tool=f"t{i}")).rule == f"r{i}"


def test_an_evaluation_over_the_engines_budget_denies() -> None:
    """The limits of documents keep rules far below it, so this one is compiled past them; the engine is real."""
    numbers = ",".join(["1"] * 200)
    greedy = compile_expression(f"[{numbers}].all(x, [{numbers}].all(y, [{numbers}].all(z, x == y && y == z)))")
    with pytest.raises(BudgetExceededError):
        run(greedy, ENVIRONMENT.Activation({}))
    written = Constitution.model_validate(parse(json.dumps(document(rules=[rule("a", "allow", "true")])).encode()))
    chunk = rules_module._Chunk((rules_module._Compiled(written.rules[0], greedy),), None)
    answer = Policy(
        {Decision.DENY: (), Decision.REQUIRE_APPROVAL: (), Decision.ALLOW: (chunk,)}, Decision.ALLOW
    ).evaluate(request())
    assert (answer.decision, answer.reason, answer.rule) == ("deny", "budget", None)


def test_a_rule_that_breaks_a_limit_does_not_compile() -> None:
    written = parse(json.dumps(document()).encode())
    broken = written.model_copy(update={"rules": (written.rules[0].model_copy(update={"when": "amount > 1"}),)})
    with pytest.raises(InvalidDocumentError):
        Policy.compile(broken)


def test_evaluation_is_the_same_from_many_threads() -> None:
    made = policy(*[rule(f"r{i}", "allow", f"tool == 't{i}' && prompt.contains('p{i}')") for i in range(100)])

    def ask(number: int) -> bool:
        i = number % 120
        answer = made.evaluate(request(tool=f"t{i}", prompt=f"... p{i} ..."))
        return answer.rule == (f"r{i}" if i < 100 else None)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(4000)))


@given(
    st.builds(
        EvaluationRequest,
        tenant=st.text(max_size=20),
        prompt=st.text(max_size=200),
        tool=st.text(max_size=20),
        amount=st.floats(allow_nan=False, allow_infinity=False),
        time=st.datetimes(timezones=st.just(UTC)),
    )
)
def test_any_request_is_decided(asked: EvaluationRequest) -> None:
    made = policy(
        rule("a", "deny", "prompt.matches('(a+)+$') || amount / 3.0 > 1.0e300"),
        rule("b", "allow", "time.getFullYear() > 2000 && tool.size() > 3"),
    )
    assert made.evaluate(asked).decision in Decision


def test_a_hundred_rules_take_little_cpu() -> None:
    made = policy(
        *[rule(f"r{i}", "deny", f"tool == 't{i}' && amount > {i}.5 || prompt.contains('s{i}')") for i in range(100)]
    )
    asked = request(tool="x", prompt="hello world " * 20)
    taken, beside = cpu_seconds(lambda: made.evaluate(asked), looks=200), cpu_seconds(lambda: count(18_000), looks=20)
    assert taken < beside, f"{taken * 1e6:.0f} us, counting {beside * 1e6:.0f} us"  # about a millisecond on our machine
