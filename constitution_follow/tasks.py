"""Ends a background task for good."""

import asyncio
from datetime import timedelta
from typing import Any

AGAIN = timedelta(seconds=5)  # longer than what a task does on its way out


async def end(task: asyncio.Task[Any], again: timedelta = AGAIN) -> None:
    """Cancel a task until it has ended.

    Once is not enough: an awaited call may swallow the cancellation. After a SIGTERM a task survived one: its loop went
    on connecting to PostgreSQL, and the process never ended.

    Args:
        task: that is to end; cancelled or not, it may have ended already.
        again: how long to wait for it before it is cancelled once more.

    Raises:
        Exception: what the task itself ended with, if that was no cancellation.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=again.total_seconds())
    if not task.cancelled():
        task.result()
