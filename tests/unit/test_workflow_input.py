"""What people send to a run is read in bounded time and refused in few words: a refusal is kept, told and shown."""

import json
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue

from constitution.errors import InvalidRequestError
from constitution.messages import RollbackRequest, UpdateRequest
from tests.machine import cpu_seconds
from workflows.input import MAX_BYTES, read

SHORT = 8_000  # characters; a status holds some dozens of such texts and must stay far below Temporal's 2 MiB

MOST_OF_PARSING = (
    30  # a refusal takes 3 to 10 times as long as reading the JSON alone; listing every problem, 100 times
)


def refusal(model: Any, data: bytes, encoding: bytes = b"json/plain") -> str:
    raw = RawValue(Payload(metadata={"encoding": encoding}, data=data))
    with pytest.raises(InvalidRequestError) as caught:
        read(model, raw, hint="constitution update --help")
    return caught.value.diagnostics()


def many(count: int) -> bytes:
    data = ("{" + ",".join(f'"{i:x}":0' for i in range(count)) + "}").encode()
    assert len(data) <= MAX_BYTES
    return data


@pytest.mark.parametrize(
    "data",
    [
        many(6_500),
        b'{"' + b"k" * 60_000 + b'": 1}',
        b'{"' + b"k" * 30_000 + b'": 1, "' + b"k" * 30_000 + b'": 2}',
        b'{"strategy": "' + b"s" * 60_000 + b'"}',
        b'{"document": ["' + b"s" * 60_000 + b'"]}',
    ],
    ids=["many unknown fields", "a long field", "a long field twice", "a long value", "a wrong type"],
)
def test_a_refusal_is_short_whatever_was_sent(data: bytes) -> None:
    said = refusal(UpdateRequest, data)
    assert len(said) < SHORT
    assert said.endswith("next: constitution update --help")


def test_an_encoding_of_any_length_is_refused_in_few_words() -> None:
    assert len(refusal(UpdateRequest, b"{}", b"e" * 100_000)) < SHORT


def test_the_number_of_problems_that_are_not_shown_is_said() -> None:
    assert "more problems" in refusal(UpdateRequest, many(100))


@pytest.mark.parametrize("data", [many(6_500), b'{"signatures":[' + b",".join([b"1"] * 30_000) + b"]}"])
def test_a_refusal_takes_little_time_whatever_was_sent(data: bytes) -> None:
    """Temporal's deadlock detector fails a workflow task after 2 s, and then again and again."""
    parsed = cpu_seconds(lambda: json.loads(data), looks=5)
    assert cpu_seconds(lambda: refusal(UpdateRequest, data), looks=5) < MOST_OF_PARSING * parsed


@pytest.mark.parametrize("update_id", ["nonsense", "", "../../x", "x" * 10_000])
def test_a_rollback_takes_no_update_id_that_is_none(update_id: str) -> None:
    assert "/update_id" in refusal(RollbackRequest, json.dumps({"reason": "x", "update_id": update_id}).encode())


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b'{"reason": "a", "reason": "b"}', "twice"),
        (b'{"reason": NaN}', "NaN"),
        (b'{"reason": "\\ud800"}', "surrogate"),
        (b'{"reason": "a", "to": 123456789012345678901234567890}', "digits"),
        (b"[" * 1000, "nested"),
        (b"\xff", "UTF-8"),
    ],
)
def test_json_that_two_readers_would_read_differently_is_refused(data: bytes, word: str) -> None:
    assert word in refusal(RollbackRequest, data)
