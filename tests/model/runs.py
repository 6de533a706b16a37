"""Where programs are run: one environment after another, the loop that it lives on, and the program under way."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from tests.model.sight import Sight
from tests.world.environment import Environments, RunningEnvironment

T = TypeVar("T")
LONGEST = timedelta(minutes=3)  # of one rule: every wait inside has a deadline of its own
OLD = 40  # releases; what every look reads grows with them


class Programs:
    """Gives programs their environment.

    An environment in which something failed is left, with its logs. One in which everything held is used again: the
    model of the next program begins with what is there.

    Args:
        environments: where they come from.
        loop: on which they live; not the thread that runs Hypothesis.
        failures: where the shortest failing program is written.
    """

    def __init__(self, environments: Environments, loop: asyncio.AbstractEventLoop, failures: Path) -> None:
        self._environments = environments
        self._loop = loop
        self._failures = failures
        self._sight: Sight | None = None
        self._program: list[str] = []
        self._shortest: int | None = None
        self._why = ""
        self.is_spoiled = False
        self._rules: Counter[str] = Counter()
        self._programs = 0
        self._began = time.monotonic()

    async def env(self, *, anew: bool = False) -> tuple[RunningEnvironment, Sight]:
        """The environment that stands; `anew`: one in which nothing was ever live."""
        begins = len(self._program) == 1
        if begins and self._sight is not None:
            releases = len(await self._sight.history())
            if self.is_spoiled or releases > OLD or (anew and releases):
                await self._environments.leave(keep_logs=self.is_spoiled)
                self._sight, self.is_spoiled = None, False
        env = await self._environments.running()
        if self._sight is None:
            self._sight = Sight(env)
        return env, self._sight

    def run(self, line: str, move: Coroutine[Any, Any, None]) -> None:
        """Run one rule, and keep it in the program."""
        self._program.append(line)
        self._rules[line.partition("(")[0]] += 1
        began = time.monotonic()
        try:
            self.wait(move)
        finally:
            sys.stdout.write(f"{time.monotonic() - began:6.1f} s  {line}\n")
            sys.stdout.flush()

    def wait(self, move: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the environment's loop; whatever it raises spoils the environment."""
        future = asyncio.run_coroutine_threadsafe(move, self._loop)
        try:
            return future.result(LONGEST.total_seconds())
        except BaseException as error:
            future.cancel()
            self.is_spoiled = True
            self._why = f"{type(error).__name__}: {error}"
            sys.stdout.write(f"{' ' * 10}{self._why}\n")
            raise

    # --- the program

    def forget_program(self) -> None:
        """A new program begins."""
        self._program = []
        self._programs += 1

    def summary(self) -> str:
        """What was run, for people."""
        rules = ", ".join(f"{name} {times}" for name, times in self._rules.most_common())
        seconds = time.monotonic() - self._began
        return f"{self._programs} programs, {self._rules.total()} rules in {seconds:.0f} s: {rules}"

    def ended(self) -> None:
        """The program is over; keep it if it failed and is the shortest so far."""
        if self.is_spoiled and (self._shortest is None or len(self._program) < self._shortest):
            self._shortest = len(self._program)
            self._failures.parent.mkdir(parents=True, exist_ok=True)
            why = [f"# {line}" for line in self._why.splitlines()]
            self._failures.write_text("\n".join([*self._program, *why]) + "\n")
