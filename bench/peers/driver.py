"""``python -m bench.peers.driver {bare,dbos,prefect} SCRATCH``: take updates live, one for each line of stdin.

A line is a ``bench.peers.calls.Given``; the answer on stdout is one line: the seconds of the whole, those of each call,
and the generation. Settings are the worker's and, in the file ``SCRATCH/assessor.json``, the assessor's. What keeps
state begins empty: DBOS in a database of its own (``DBOS_URL``), Prefect in its own server's.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from temporalio.client import Client

import assessor
import worker
from bench.peers.calls import Activities, Given, Json, Step, confirm
from bench.peers.engines import ENGINES
from constitution.confirmation import confirmation_reason
from constitution.release import Verdict
from workflows.conversion import data_converter


@asynccontextmanager
async def activities(scratch: Path) -> AsyncIterator[Activities]:
    """Build the worker's and the assessor's activities, with the settings of each."""
    async with AsyncExitStack() as stack:
        mine = worker.configure()
        client = await Client.connect(mine.temporal["target_host"], data_converter=data_converter, lazy=True)
        methods = list(await stack.enter_async_context(worker.activities(mine, client)))
        os.environ.update(json.loads((scratch / "assessor.json").read_text(encoding="utf-8")))
        methods += await stack.enter_async_context(assessor.activities(assessor.configure()))
        yield Activities(methods)


class Timed:
    """Measures each call.

    Args:
        step: makes it.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self.seconds: list[tuple[str, float]] = []

    async def call(self, name: str, argument: Json, run: Json) -> Json:
        """Make a call."""
        began = time.perf_counter()
        answer = await self._step(name, argument, run)
        self.seconds.append((name, time.perf_counter() - began))
        return answer


async def main(kind: str, scratch: Path) -> None:
    """Serve until stdin ends."""
    async with activities(scratch) as methods:
        timed = Timed(methods.call)
        async with ENGINES[kind](timed.call, scratch) as release:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            while line := await asyncio.to_thread(sys.stdin.readline):
                given = Given.model_validate_json(line)
                timed.seconds.clear()
                began = time.perf_counter()
                live = await release(given.model_dump(mode="json"))
                seconds = time.perf_counter() - began
                calls = list(timed.seconds)
                reason = confirmation_reason(Verdict.NOT_WATCHED, promoted_by="", resumed=None, cut_short=False)
                await confirm(methods.call, given.run, live, reason)
                answer = {"seconds": seconds, "calls": calls, "generation": live["published"]["generation"]}
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
