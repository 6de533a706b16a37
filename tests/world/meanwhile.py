"""Work that goes on beside a block of a test, until the block ends."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Never


@asynccontextmanager
async def meanwhile(*work: Coroutine[Any, Any, Never]) -> AsyncIterator[None]:
    """Have others work until the block ends.

    Raises:
        AssertionError: one of them stopped by itself: the test went on without it.
    """
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ends: list[BaseException] = await asyncio.gather(*tasks, return_exceptions=True)
        early = [end for end in ends if not isinstance(end, asyncio.CancelledError)]
        if early:
            raise AssertionError(f"stopped before the test did: {early[0]!r}") from early[0]
