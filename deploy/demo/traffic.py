"""The fleet: agents that start sessions at a steady rate and try again when they are refused.

A process of its own, so that the story's waiting never makes the traffic pause. Each session is a request to a real
orchestrator, which asks a real policy engine. A refused agent does what real ones do: it asks again, a few times.
"""

import asyncio
import contextlib
import itertools
import json
import random
import signal
import sys
from pathlib import Path
from typing import Any, Final

import httpx

SESSIONS_PER_SECOND: Final = 20.0
"""Slow enough for two busy cores, fast enough that the preflight knows it would see a doubling.

With 10 a second and 30 s of baseline it rightly refused one such watch in eight as blind (simulated with these
retries); with 20 a second none of 2,000, also where half the baseline is left out because its release was undone.
"""
RETRIES: Final = 3
RETRY_PAUSE_S: Final = 0.2


async def _session(client: httpx.AsyncClient, orchestrators: list[str], request: dict[str, Any]) -> str:
    """Start one session; return the last decision, or ``unreachable``."""
    decision = "unreachable"
    for _ in range(1 + RETRIES):
        for url in random.sample(orchestrators, len(orchestrators)):
            try:
                answer = await client.post(f"{url}/v1/sessions/start", json=request)
            except httpx.TransportError:
                continue  # a replica is down: the agent asks the next one
            if answer.status_code == httpx.codes.OK:
                decision = str(answer.json()["decision"])
                break
        if decision == "allow":
            return decision
        await asyncio.sleep(RETRY_PAUSE_S)
    return decision


async def main(orchestrators: list[str], requests: list[dict[str, Any]]) -> None:
    """Send sessions until SIGTERM, then print what was decided as one JSON object."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    counts: dict[str, int] = {}
    running: set[asyncio.Task[str]] = set()

    def done(task: asyncio.Task[str]) -> None:
        running.discard(task)
        decision = task.result()
        counts[decision] = counts.get(decision, 0) + 1

    endless = itertools.cycle(requests)
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        while not stop.is_set():
            task = asyncio.create_task(_session(client, orchestrators, next(endless)))
            running.add(task)
            task.add_done_callback(done)
            with contextlib.suppress(TimeoutError):
                # Arrivals of independent agents: exponential gaps (a Poisson process).
                await asyncio.wait_for(stop.wait(), random.expovariate(SESSIONS_PER_SECOND))
        await asyncio.gather(*running)
    sys.stdout.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[2:], json.loads(Path(sys.argv[1]).read_text())))
