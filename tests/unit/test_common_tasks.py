"""How background tasks are ended."""

import asyncio
import contextlib
from datetime import timedelta

import pytest

from constitution_follow.tasks import end

pytestmark = pytest.mark.timeout(20)


async def test_a_task_that_swallows_cancellations_is_ended_all_the_same() -> None:
    swallowed = 0
    begun = asyncio.Event()

    async def works() -> None:
        nonlocal swallowed
        begun.set()
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()
            swallowed += 1
            if swallowed == 2:
                raise asyncio.CancelledError

    task = asyncio.create_task(works())
    await begun.wait()
    await end(task, again=timedelta(milliseconds=20))
    assert task.cancelled()
    assert swallowed == 2


async def test_a_task_is_given_the_time_that_its_way_out_takes() -> None:
    left: list[str] = []
    begun = asyncio.Event()

    async def works() -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.to_thread(left.append, "in order")

    task = asyncio.create_task(works())
    await begun.wait()
    await end(task)
    assert left == ["in order"]


async def test_what_a_task_failed_with_is_not_lost() -> None:
    async def fails() -> None:
        raise ValueError("a defect")

    task = asyncio.create_task(fails())
    await asyncio.wait({task})
    with pytest.raises(ValueError, match="a defect"):
        await end(task)
