"""Work beside a test: it ends with the block, and its early end is not silent."""

import asyncio
from typing import Never

import pytest

from tests.world.meanwhile import meanwhile


async def test_work_goes_on_until_the_block_ends() -> None:
    done, ended = asyncio.Event(), asyncio.Event()

    async def work() -> Never:
        try:
            while True:
                done.set()
                await asyncio.sleep(0)
        finally:
            ended.set()

    async with meanwhile(work()):
        await asyncio.wait_for(done.wait(), 5)
        assert not ended.is_set()
    assert ended.is_set()


async def test_work_that_stops_by_itself_fails_the_test_and_says_why() -> None:
    async def work() -> Never:
        raise LookupError("nobody asked")

    async def test() -> None:
        async with meanwhile(work()):
            await asyncio.sleep(0)
            raise TimeoutError("no outcome")

    with pytest.raises(AssertionError, match="stopped before the test did: LookupError") as failed:
        await test()
    assert isinstance(failed.value.__cause__, LookupError)
