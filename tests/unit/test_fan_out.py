"""Thousands are asked so many at a time, only laggards again, and what is told of it stays small."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.fan_out import AT_ONCE, GIVEN_UP, Tally, TargetState, ask_until_settled, each
from activities.sync import SyncReport
from constitution.environment import Target
from constitution.listing import NAMED

Ask = Callable[[Target, TargetState], Awaitable[None]]


def fleet(count: int) -> list[Target]:
    return [Target(id=f"engine-{n:05d}", kind="policy_engine", url="http://127.0.0.1:1") for n in range(count)]


async def asked(
    targets: list[Target], ask: Ask, *, seconds: float = 30, undo: bool = False
) -> tuple[Tally, list[dict[str, Any]]]:
    """Ask within an activity; return the tally and the heartbeats."""
    tally, beats = Tally.of(targets), []
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: beats.append(details[0])

    async def work() -> None:
        await ask_until_settled(
            targets, tally, ask, deadline_s=seconds, settled=lambda tally: undo and tally.only_silent_left
        )

    await environment.run(work)
    return tally, beats


async def test_so_many_questions_are_under_way_and_only_laggards_are_asked_again() -> None:
    under_way = most = 0
    questions: Counter[str] = Counter()
    late = {"engine-00003", "engine-01999"}

    async def ask(target: Target, state: TargetState) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        questions[target.id] += 1
        state.answer = "obeys generation 1"
        state.converged = target.id not in late or questions[target.id] == 3
        under_way -= 1

    tally, beats = await asked(fleet(2000), ask)
    assert most == AT_ONCE
    assert {name for name, times in questions.items() if times > 1} == late
    assert {questions[name] for name in late} == {3}
    assert tally.open == {}
    assert SyncReport.of(tally).more_converged == 2000 - NAMED
    assert len(beats) < 5, "at most once a second, however many converge"
    assert beats[-1]["converged"] == 2000


async def test_a_heartbeat_and_a_report_do_not_grow_with_the_fleet() -> None:
    async def ask(_target: Target, state: TargetState) -> None:
        await asyncio.sleep(0)
        state.answer = "obeys generation 1, sha256:" + "0" * 64

    tally, beats = await asked(fleet(5000), ask, seconds=0.2)
    assert max(len(str(beat)) for beat in beats) < 3_000
    report = SyncReport.of(tally)
    assert report.lagging[0] == "engine-00000"
    assert len(report.lagging) + report.more_lagging + len(report.unreachable) + report.more_unreachable == 5000
    assert len(report.model_dump_json()) < 3_000


async def test_who_was_never_asked_before_the_deadline_is_not_called_lagging() -> None:
    async def ask(_target: Target, state: TargetState) -> None:
        await asyncio.sleep(60)
        state.converged = True

    tally, _ = await asked(fleet(AT_ONCE + 1), ask, seconds=0.1)
    last = tally.states[f"engine-{AT_ONCE:05d}"]
    assert (last.word, last.description) == ("unreachable", "has not been asked yet")


async def test_an_undo_ends_once_all_who_are_left_are_silent() -> None:
    async def ask(target: Target, state: TargetState) -> None:
        await asyncio.sleep(0)
        state.converged = target.id != "engine-00000"
        state.silent += not state.converged

    tally, _ = await asked(fleet(3), ask, undo=True)
    assert tally.open["engine-00000"].silent == GIVEN_UP
    assert tally.silent == 1


async def test_a_defect_of_a_question_ends_the_asking() -> None:
    async def ask(_target: Target, _state: TargetState) -> None:
        raise KeyError("generation")

    with pytest.raises(KeyError):
        await asked(fleet(3), ask)


async def test_each_keeps_the_order_and_ends_at_the_first_error() -> None:
    done = []

    async def double(number: int) -> int:
        await asyncio.sleep(0.001 * (number % 3))
        if number == 50:
            raise ValueError(number)
        done.append(number)
        return 2 * number

    assert await each(range(20), double, at_once=4) == [2 * number for number in range(20)]
    assert await each([], double) == []
    with pytest.raises(ValueError, match="50"):
        await each(range(40, 10_000), double, at_once=4)
    assert max(done) < 60
