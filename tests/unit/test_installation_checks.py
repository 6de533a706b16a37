"""What a look at an installation may say: the worst counts, and clocks are compared no finer than they were read."""

from datetime import UTC, datetime, timedelta

import pytest

from deploy.installation.__main__ import CODES, verdict
from deploy.installation.check import State, cannot_tell, clock, missing, ok

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
OK, MISSING, CANNOT_TELL = ok("a", "b", "c"), missing("a", "b", "c", "do"), cannot_tell("a", "b", "c", "do")


@pytest.mark.parametrize(
    ("found", "state", "code"),
    [
        ([OK, OK], State.OK, 0),
        ([OK, CANNOT_TELL], State.CANNOT_TELL, 3),
        ([OK, CANNOT_TELL, MISSING], State.MISSING, 1),
    ],
)
def test_the_worst_that_was_found_is_the_verdict(found: list, state: State, code: int) -> None:  # type: ignore[type-arg]
    assert (verdict(found), CODES[state]) == (state, code)


@pytest.mark.parametrize(
    ("seconds", "state"),
    [(0, State.OK), (29, State.OK), (-29, State.OK), (30.5, State.OK), (34, State.MISSING), (-34, State.MISSING)],
)
def test_a_clock_is_wrong_only_when_it_must_be(seconds: float, state: State) -> None:
    found = clock("server", NOON + timedelta(seconds=seconds), NOON, NOON + SECOND, SECOND)
    assert found.state is state
    assert bool(found.command) == (state is not State.OK)


def test_a_slow_answer_proves_no_wrong_clock() -> None:
    asked, answered = NOON, NOON + timedelta(seconds=60)
    assert clock("server", NOON + timedelta(seconds=45), asked, answered, SECOND).state is State.OK
