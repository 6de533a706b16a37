"""What tests share that is no fixture."""

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, overload

from tests.machine import patience

T = TypeVar("T")

DEADLINE = timedelta(seconds=20)
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5
SHARE = 0.05
"""A pause is this share of the time waited so far: what takes long is asked seldom, and is seen a twentieth later."""


def pause(waited: float) -> float:
    """Seconds to wait until the next question."""
    return min(LONGEST_PAUSE, max(FIRST_PAUSE, waited * SHARE))


def whole_lines(file: Path) -> list[str]:
    """The lines of a file that another process is writing; one whose end is not there yet is not a line."""
    return file.read_text().split("\n")[:-1] if file.exists() else []


@overload
async def eventually(condition: Callable[[], Coroutine[Any, Any, T]], deadline: timedelta = ...) -> T: ...
@overload
async def eventually(condition: Callable[[], T], deadline: timedelta = ...) -> T: ...
async def eventually(condition: Callable[[], Any], deadline: timedelta = DEADLINE) -> Any:
    """Ask until `condition()` is true (or its awaited result is) and return what it returned.

    An AssertionError inside the condition means "not yet"; any other exception is the test's failure. The deadline is
    for a machine like ours with nothing else to do; a slower or busier one is given more (tests/machine.py).

    Raises:
        AssertionError: The deadline passed; with the condition's last answer or assertion.
    """
    within = patience(deadline)
    began = time.monotonic()
    end = began + within.total_seconds()
    last: object = "it was not answered once"
    try:
        while True:
            try:
                answer = condition()
                result = await answer if inspect.isawaitable(answer) else answer
            except AssertionError as error:
                last = error
            else:
                if result:
                    return result
                last = result
            if time.monotonic() >= end:
                raise AssertionError(f"not true within {within}: {last!r}")
            await asyncio.sleep(pause(time.monotonic() - began))
    except asyncio.CancelledError as error:  # the test's own limit, or whoever asked for it
        error.add_note(f"waited for {condition.__qualname__}, last: {last!r}")
        raise


def eventually_sync(condition: Callable[[], T], deadline: timedelta = DEADLINE) -> T:
    """As `eventually`, for tests without an event loop."""
    within = patience(deadline)
    began = time.monotonic()
    end = began + within.total_seconds()
    while True:
        last: object
        try:
            result = condition()
        except AssertionError as error:
            last = error
        else:
            if result:
                return result
            last = result
        if time.monotonic() >= end:
            raise AssertionError(f"not true within {within}: {last!r}")
        time.sleep(pause(time.monotonic() - began))
