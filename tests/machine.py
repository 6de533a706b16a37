"""How fast this machine is, now: what tests judge times by, and how long they wait.

No test judges a time by a clock alone: a machine may be slower than ours, or busy with other work. What may take long
is measured beside work of a known size. Deadlines, which only tell a hang from slowness, are stretched by one factor.
"""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache

USUAL_S = 0.055
"""Seconds of CPU that counting to a million takes on the machine that the deadlines were chosen on."""

MOST = 8.0
"""A hang is told within this many times the usual deadline, however busy the machine is."""


def count(number: int) -> int:
    """Work of a known size: some arithmetic, as often as is said."""
    total = 0
    for step in range(number):
        total = (total * 31 + step) & 0xFFFFFFFF
    return total


def cpu_seconds(act: Callable[[], object], looks: int = 1) -> float:
    """Return the CPU seconds of the calling thread that `act` takes, the least of some looks."""
    best = float("inf")
    for _ in range(looks):
        started = time.thread_time()
        act()
        best = min(best, time.thread_time() - started)
    return best


@cache
def pace() -> float:
    """How many times longer than usual things may take here: 1 on an idle machine like ours, at most `MOST`.

    Measured once a session: how long a known amount of work takes, times the programs that wait for each core.
    """
    slower = cpu_seconds(lambda: count(1_000_000), looks=3) / USUAL_S
    return stretch(slower, os.getloadavg()[0], len(os.sched_getaffinity(0)))


def stretch(slower: float, load: float, cores: int) -> float:
    """The factor on a machine that is `slower` times slower, with this load average on so many cores."""
    return min(MOST, max(1.0, slower) * max(1.0, load / cores))


def patience(usual: timedelta) -> timedelta:
    """How long to wait here for what usually comes within `usual`."""
    return usual * pace()
