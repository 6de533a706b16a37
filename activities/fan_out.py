"""Asks thousands of targets at a bounded cost: so many questions at once, and only those again that did not converge.

A task for each target would hold a socket and a stack for each of 50,000 at the same time. Here some workers take
targets from one queue; who has to be asked again comes back to its end after a pause that grows, so a laggard never
delays a target that has not been asked yet. What is told while it lasts, and afterwards, is counts and a few names.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count, islice
from typing import TypeVar

from temporalio import activity

from constitution.checksum import Checksum
from constitution.environment import Target
from constitution.listing import NAMED, first_names
from constitution.trust.fleet import State, TargetReport

AT_ONCE = 64  # questions under way; more make no asker of one core faster, and each holds a connection
BEAT = timedelta(seconds=1)  # between heartbeats; a cancel is noticed within it
ASK_AGAIN = timedelta(milliseconds=250)  # a target that follows the event is there after one or two of these
SLOWER = 1.5  # factor between one pause and the next: a target is found within half of the time that it took
ASK_AGAIN_MAX = timedelta(seconds=4)  # so a deadline of a minute has some ten questions for each laggard
GIVEN_UP = 3  # questions in a row without an answer after which a target is silent, whatever it said before
DESCRIBED = 10  # open targets in a heartbeat

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class TargetState:
    """What a target said last, if it ever did. ``silent`` counts the questions in a row that it did not answer."""

    converged: bool = False
    answer: str | None = None
    generation: int | None = None
    checksum: Checksum | None = None
    asked: int = 0
    silent: int = 0
    silence: str = "has not been asked yet"

    @property
    def unreachable(self) -> bool:
        """It never answered, or has stopped answering."""
        return self.answer is None or self.silent >= GIVEN_UP

    @property
    def description(self) -> str:
        """Its last answer, and why there is none since; for people."""
        if self.answer is None:
            return self.silence
        return f"{self.answer}; then {self.silence}" if self.silent else self.answer

    @property
    def word(self) -> State:
        """Return converged, lagging or unreachable."""
        return "converged" if self.converged else "unreachable" if self.unreachable else "lagging"

    @property
    def pause_s(self) -> float:
        """Seconds until it is asked again."""
        grown = ASK_AGAIN.total_seconds() * SLOWER ** min(self.asked - 1, 30)
        return min(grown, ASK_AGAIN_MAX.total_seconds())


@dataclass(slots=True)
class Tally:
    """The states of all targets, and the counts that would take a look at each of them."""

    states: dict[str, TargetState]
    open: dict[str, TargetState] = field(default_factory=dict)
    silent: int = 0

    @classmethod
    def of(cls, targets: Iterable[Target]) -> "Tally":
        """Begin: nobody has been asked."""
        states = {target.id: TargetState() for target in targets}
        return cls(states, dict(states))

    @property
    def only_silent_left(self) -> bool:
        """Somebody has converged, and who has not gives no answer any more."""
        return 0 < len(self.open) == self.silent < len(self.states)

    def take(self, name: str, silent_before: int) -> None:
        """Count a target anew after its answer."""
        state = self.states[name]
        self.silent += (state.silent >= GIVEN_UP) - (silent_before >= GIVEN_UP)
        if state.converged:
            state.answer = None  # that of everybody else, 50,000 times
            del self.open[name]

    def beat(self) -> dict[str, object]:
        """Return what a heartbeat says."""
        first = islice(self.open.items(), DESCRIBED)
        return {
            "converged": len(self.states) - len(self.open),
            "open": len(self.open),
            "silent": self.silent,
            "first_open": {name: state.description for name, state in first},
        }

    def names(self, word: State) -> tuple[tuple[str, ...], int]:
        """Return the first names of those in a state, and how many others there are."""
        found = [name for name, state in self.states.items() if state.word == word]
        return first_names(found), max(len(found) - NAMED, 0)

    def reports(self) -> tuple[TargetReport, ...]:
        """Return what each target said last, in order of id."""
        return tuple(
            TargetReport(id=name, state=state.word, generation=state.generation, checksum=state.checksum)
            for name, state in sorted(self.states.items())
        )


async def ask_until_settled(
    targets: Sequence[Target],
    tally: Tally,
    ask: Callable[[Target, TargetState], Awaitable[None]],
    *,
    deadline_s: float,
    settled: Callable[[Tally], bool],
) -> None:
    """Ask every target until it has converged, all is settled, or the time is over; heartbeat meanwhile.

    Args:
        targets: whom.
        tally: of them; holds what came of it.
        ask: one question; notes the answer in the target's state.
        deadline_s: seconds from now.
        settled: whether who has not converged yet need not be waited for.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Target] = asyncio.Queue()
    for target in targets:
        queue.put_nowait(target)
    over = asyncio.Event()

    async def work() -> None:
        while True:
            target = await queue.get()
            state = tally.states[target.id]
            before = state.silent
            state.asked += 1
            await ask(target, state)
            tally.take(target.id, before)
            if not state.converged:
                loop.call_later(state.pause_s, queue.put_nowait, target)
            if not tally.open or settled(tally):
                over.set()

    deadline = loop.time() + deadline_s
    workers = [asyncio.create_task(work()) for _ in range(min(AT_ONCE, len(targets)))]
    ended = asyncio.create_task(over.wait())
    try:
        while tally.open and not over.is_set():
            activity.heartbeat(tally.beat())
            wait = min(BEAT.total_seconds(), deadline - loop.time())
            if wait <= 0:
                break
            done, _ = await asyncio.wait([ended, *workers], timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {ended}:
                task.result()  # a worker ends only by a defect
        activity.heartbeat(tally.beat())
    finally:
        await _cancelled([ended, *workers])


async def each(
    items: Iterable[T], work: Callable[[T], Awaitable[R]], *, at_once: int = AT_ONCE, what: str = ""
) -> list[R]:
    """Return what ``work`` makes of each item, in their order; so many at once. The first error ends all.

    Args:
        items: drawn one by one.
        work: of one item.
        at_once: most of them under way.
        what: of a heartbeat once a second, with the count of those done; empty: no heartbeat.
    """
    found: dict[int, R] = {}
    left = zip(count(), items, strict=False)

    async def worker() -> None:
        for number, item in left:
            found[number] = await work(item)

    workers = [asyncio.create_task(worker()) for _ in range(at_once)]
    try:
        waiting = set(workers)
        while waiting:
            if what:
                activity.heartbeat(f"{what}: {len(found)} done")
            done, waiting = await asyncio.wait(
                waiting, timeout=BEAT.total_seconds(), return_when=asyncio.FIRST_EXCEPTION
            )
            for task in done:
                task.result()
    finally:
        await _cancelled(workers)
    return [found[number] for number in range(len(found))]


async def _cancelled(tasks: Sequence[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
