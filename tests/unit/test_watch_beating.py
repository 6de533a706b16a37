"""A watch that has hours of samples to read and judge goes on heartbeating, and stops when it is cancelled."""

import asyncio
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.watch.watch import beating


async def test_it_heartbeats_until_the_work_is_done() -> None:
    environment = ActivityEnvironment()
    beats: list[Any] = []
    twice = asyncio.Event()

    def heard(*details: Any) -> None:
        beats.append(details)
        if len(beats) == 2:
            twice.set()

    async def work() -> str:
        await twice.wait()  # for ever, if nobody heartbeats meanwhile
        return "judged"

    async def watch() -> str:
        return await beating(work())

    environment.on_heartbeat = heard
    assert await asyncio.wait_for(environment.run(watch), 20) == "judged"
    assert len(beats) == 2


async def test_an_error_of_the_work_is_the_error() -> None:
    async def work() -> None:
        raise ValueError("no matrix")

    async def watch() -> None:
        await beating(work())

    with pytest.raises(ValueError, match="no matrix"):
        await ActivityEnvironment().run(watch)


async def test_a_cancel_ends_the_work() -> None:
    environment = ActivityEnvironment()
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def watch() -> None:
        await beating(work())

    task = asyncio.create_task(environment.run(watch))
    await asyncio.wait_for(begun.wait(), 20)
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
    await asyncio.wait_for(ended.wait(), 20)
