"""Messages that anybody may have written are refused by their shape before a reader is let loose on them."""

import json
from collections.abc import Callable

import pytest

from constitution.release import CurrentConstitution, Envelope
from constitution.strict_json import MAX_OUTSIDE, MAX_STRINGS, StrictJsonError, require_simple
from constitution.untrusted import read_message

LARGE = 15 * 1024 * 1024  # bytes; each of these, read by pydantic, took a second to a minute
DOCUMENT = json.dumps({"rules": [{"when": 'a == "b"\n', "text": "\\"}] * 20_000}, indent=1)  # 1 MiB of quotes to escape


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: "{" + ",".join(f'"k{n:07d}":0' for n in range(LARGE // 13)) + "}", id="unknown keys"),
        pytest.param(lambda: '{"signatures":[' + "1," * (LARGE // 2) + "1]}", id="numbers"),
        pytest.param(lambda: '{"signatures":[' + "[]," * (LARGE // 3) + "1]}", id="lists"),
        pytest.param(lambda: '{"a":' + "[" * LARGE, id="deep"),
        pytest.param(lambda: '{"a\\\\":"' + '","' * (LARGE // 3), id="keys that end in a backslash"),
        pytest.param(lambda: '"\\"' * (LARGE // 3), id="open strings"),
        pytest.param(lambda: " " * LARGE, id="white space"),
    ],
)
def test_what_costs_more_than_its_size_is_refused_unread(make: Callable[[], str]) -> None:
    with pytest.raises(StrictJsonError):
        read_message(CurrentConstitution, make().encode())


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda: json.dumps({"document": DOCUMENT, "signatures": ["x" * 1_000_000] * 4}), id="a large release"
        ),
        pytest.param(lambda: json.dumps(["x"] * (MAX_STRINGS - 1)), id="many strings"),
        pytest.param(lambda: "[" + " " * (MAX_OUTSIDE - 2) + "]", id="much white space"),
        pytest.param(lambda: '{"a":"' + "\\\\" * 1_000_000 + '"}', id="backslashes"),
        pytest.param(lambda: '{"a":"' + '\\"' * 1_000_000, id="a string without an end"),
    ],
)
def test_what_a_release_may_look_like_is_let_through(make: Callable[[], str]) -> None:
    require_simple(make().encode())


def test_a_message_is_read_and_another_is_a_value_error() -> None:
    envelope = {"payloadType": "t", "payload": "p", "signatures": [{"keyid": "k", "sig": "s"}]}
    assert read_message(Envelope, json.dumps(envelope).encode()).payload == "p"
    with pytest.raises(ValueError, match="payloadType"):
        read_message(Envelope, b"{}")
