"""A test that takes too long fails alone, and says where it was and what it waited for.

pytest-timeout's way for threads ends the whole process, and with it all tests that would have come. Here an
asynchronous test is cancelled, which leaves its loop and fixtures in order. One that blocks its loop, or has none, is
interrupted by the signal of pytest-timeout, some seconds later.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.machine import pace

GRACE_S = 15.0
"""For a cancelled test to clean up, before the signal comes."""


def usual_seconds(item: pytest.Item) -> float:
    """What is said beside the test, else in pyproject.toml; 0 is no limit."""
    marker = item.get_closest_marker("timeout")
    said = (marker.args[0] if marker.args else marker.kwargs["timeout"]) if marker else item.config.getini("timeout")
    return float(said)


def set_limit(item: pytest.Item) -> None:
    """Let a test end by itself in the time that it may take on this machine."""
    usual = usual_seconds(item)
    if usual == 0 or not isinstance(item, pytest.Function):
        return
    seconds = usual * pace()
    cancelled = asyncio.iscoroutinefunction(item.obj) and not hasattr(item.obj, "hypothesis")
    if cancelled:
        item.obj = limited(item.obj, seconds)
    item.add_marker(pytest.mark.timeout(seconds + GRACE_S * cancelled), append=False)


def limited(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    """Wrap an asynchronous test: after so many seconds it is cancelled and fails.

    Raises:
        AssertionError: it took longer; the notes say what it waited for.
    """

    @functools.wraps(test)
    async def wrapped(*arguments: Any, **fixtures: Any) -> None:
        try:
            async with asyncio.timeout(seconds) as limit:
                await test(*arguments, **fixtures)
        except TimeoutError as error:
            if not limit.expired():
                raise
            cause = error.__context__  # its cause, too, from Python 3.11.3 on
            notes = "; ".join(getattr(cause, "__notes__", ()))
            raise AssertionError(f"the test took longer than {seconds:.0f} s{notes and f': {notes}'}") from cause

    return wrapped
