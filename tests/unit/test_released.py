"""What an untrusted message proves: the release whose statement a pinned service key signed for this environment."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from constitution.errors import UntrustedError
from constitution.events import UpdatedEvent
from constitution.release import CurrentConstitution, Envelope, Kind, ReleasePredicate
from constitution.strict_json import MAX_STRINGS
from signatures.current import read_current
from signatures.released import read_signed_value, signed_events
from signatures.statements import sign_release
from tests.unit.keyring import keyring

HERE, ELSEWHERE = "development", "elsewhere"
MOMENT = datetime(2026, 11, 1, tzinfo=UTC)


def statement(generation: int, environment: str = HERE) -> Envelope:
    predicate = ReleasePredicate(
        environment=environment,
        rings=("default",),
        generation=generation,
        kind=Kind.WITHDRAW,
        version=None,
        checksum=None,
        previous="sha256:" + "1" * 64,
        effective_at=MOMENT,
        signatures=(),
        update_id="u",
    )
    return sign_release(predicate, keyring().service.id, keyring().service.private_key)


def event(generation: int, signed: Envelope, offset: int = 0) -> dict[str, Any]:
    """An event as adapters.event_log returns it."""
    value = UpdatedEvent(
        tenant="global",
        environment=HERE,
        rings=("default",),
        generation=generation,
        kind=Kind.WITHDRAW,
        version=None,
        checksum=None,
        previous=None,
        effective_at=MOMENT,
        summary="",
        approvers=(),
        update_id="u",
        workflow_id="w",
        run_id="r",
        statement=signed,
    )
    return {"generation": generation, "offset": offset, "raw": value.model_dump_json()}


def value(generation: int, signed: Envelope) -> CurrentConstitution:
    return CurrentConstitution(
        environment=HERE,
        generation=generation,
        kind=Kind.WITHDRAW,
        version=None,
        checksum=None,
        effective_at=MOMENT,
        document=None,
        signatures=(),
        statement=signed,
    )


def forged(signed: Envelope) -> Envelope:
    return signed.model_copy(update={"payload": statement(9).payload})


def read(*events: dict[str, Any]) -> list[tuple[int, int]]:
    found = signed_events(events, keyring().trust)
    return [(release.generation, event["offset"]) for event, _, release in found]


def test_the_newest_generation_comes_first_and_events_of_one_keep_their_order() -> None:
    events = [event(n, statement(n), offset) for offset, n in enumerate((2, 3, 1, 3))]
    assert read(*events) == [(3, 1), (3, 3), (2, 0), (1, 2)]


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(event(9, statement(9, ELSEWHERE)), id="another environment's"),
        pytest.param(event(9, statement(8)), id="the statement of another generation"),
        pytest.param(event(9, forged(statement(2))), id="no valid signature"),
        pytest.param({"generation": 9, "offset": 0, "raw": "{}"}, id="another shape"),
        pytest.param({"generation": 9, "offset": 0, "raw": json.dumps(["x"] * MAX_STRINGS * 2)}, id="too many values"),
    ],
)
def test_an_event_that_proves_nothing_is_passed_over(bad: dict[str, Any]) -> None:
    assert read(bad, event(1, statement(1), 7)) == [(1, 7)]


def test_a_value_proves_its_statement_and_nothing_else() -> None:
    told = value(99, statement(3)).model_dump_json().encode()
    found, release = read_signed_value(told, keyring().trust)
    assert (found.generation, release.generation) == (99, 3)
    with pytest.raises(UntrustedError, match="generation is 3, not 99"):
        read_current(told, trust=keyring().trust, environment=HERE, ring="default")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(value(3, statement(3, ELSEWHERE)).model_dump_json(), "elsewhere", id="another environment's"),
        pytest.param(value(2, forged(statement(2))).model_dump_json(), "does not verify", id="no valid signature"),
        pytest.param("{}", "cannot be read", id="another shape"),
        pytest.param(json.dumps(["x"] * MAX_STRINGS * 2), "cannot be read", id="too many values"),
    ],
)
def test_a_value_that_proves_nothing_is_refused(data: str, reason: str) -> None:
    with pytest.raises(UntrustedError, match=reason):
        read_signed_value(data.encode(), keyring().trust)
    with pytest.raises(UntrustedError, match=reason):
        read_current(data.encode(), trust=keyring().trust, environment=HERE, ring="default")


def test_a_value_that_is_signed_is_read_whole() -> None:
    told = value(3, statement(3))
    data = told.model_dump_json().encode()
    assert read_current(data, trust=keyring().trust, environment=HERE, ring="default") == told
