"""The size of a regular expression, and what a document may hold of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitution.errors import InvalidDocumentError
from constitution.policy.document import parse
from constitution.policy.patterns import expanded_size
from tests.machine import count, cpu_seconds
from tests.unit.keyring import document, rule


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("", 0),
        ("abc", 3),
        ("a*b+c?", 3),
        ("a|bc", 3),
        ("a{5}", 5),
        ("ab{2,7}", 8),
        ("a{3,}", 3),
        ("(ab){10}", 20),
        ("((ab){10}c){10}", 210),
        (r"\d{4}-\d{2}", 7),
        (r"[a-z\]]{3}x", 4),
        ("[]a]{3}", 3),
        ("[^]a]{3}", 3),
        ("[[:alpha:]]{4}", 4),
        ("{5}", 0),
        ("a{x}", 4),
    ],
)
def test_repetitions_are_written_out(pattern: str, size: int) -> None:
    assert expanded_size(pattern) == size


@given(st.text(alphabet="ab(){}[]^:\\|*+?,0123456789", max_size=60))
def test_any_text_has_a_size(pattern: str) -> None:
    assert expanded_size(pattern) >= 0


@pytest.mark.parametrize("pattern", ["x{1000}" * 3, "(" + "a" * 300 + "){10}", "((a|b|c|d|.){1,90}){1,10}q"])
def test_a_pattern_of_many_states_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        parse(json.dumps(document(rules=[rule("a", "deny", f"prompt.matches('{pattern}')")])).encode())
    assert [issue.code for issue in caught.value.issues] == ["cel-pattern-size"]


def test_a_megabyte_of_patterns_is_judged_in_little_time() -> None:
    """Anybody may ask /v1/constitution/validate; half a minute of CPU for one request would let anybody stop it."""
    when = "prompt.matches('" + "x{1000}" * 540 + "')"
    data = json.dumps(document(rules=[rule(f"r{i}", "deny", when) for i in range(240)])).encode()

    def judge() -> None:
        with pytest.raises(InvalidDocumentError):
            parse(data)

    assert cpu_seconds(judge) < 90 * cpu_seconds(lambda: count(1_000_000), looks=3)  # about five seconds on our machine
