"""The fleet: agents that start sessions at a steady rate, or in bursts, and try again when they are refused.

``make traffic`` sends them to the running stack. The demo runs it as a process of its own, so that the story's waiting
never makes the traffic pause. Each session is a request to a real
orchestrator, which asks a real policy engine. A refused agent does what real ones do: it asks again, a few times.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from constitution.environment import Environment
from deploy.embedded.stack import Stack
from deploy.embedded.stack_directory import CHECKOUT

SESSIONS_PER_SECOND: Final = 20.0
"""Slow enough for two busy cores, fast enough that the preflight knows it would see a doubling.

With 10 a second and 30 s of baseline it rightly refused one such watch in eight as blind (simulated with these
retries); with 20 a second none of 2,000, also where half the baseline is left out because its release was undone.
"""
BURST: Final = 0.5
"""With ``--bursty`` the rate is by this share higher and lower in turn; on average it is the same."""
BURST_S: Final = 1.0
"""Mean length of a burst and of a lull, both exponential (a Markov-modulated Poisson process)."""
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


def _gaps(rate: float, *, bursty: bool) -> Iterator[float]:
    """Seconds from one session to the next: exponential, as of independent agents (a Poisson process)."""
    high, left = True, random.expovariate(1 / BURST_S)
    while True:
        if not bursty:
            yield random.expovariate(rate)
            continue
        gap = 0.0
        while (step := random.expovariate(rate * (1 + BURST if high else 1 - BURST))) > left:
            gap += left  # the phase ends before the next session; what is left of the gap has no memory
            high, left = not high, random.expovariate(1 / BURST_S)
        left -= step
        yield gap + step


async def _send(orchestrators: list[str], requests: list[dict[str, Any]], rate: float, *, bursty: bool) -> None:
    """Send sessions until SIGTERM or SIGINT, then print what was decided as one JSON object."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    counts: dict[str, int] = {}
    running: set[asyncio.Task[str]] = set()

    def done(task: asyncio.Task[str]) -> None:
        running.discard(task)
        decision = task.result()
        counts[decision] = counts.get(decision, 0) + 1

    endless, gaps = itertools.cycle(requests), _gaps(rate, bursty=bursty)
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        while not stop.is_set():
            task = asyncio.create_task(_session(client, orchestrators, next(endless)))
            running.add(task)
            task.add_done_callback(done)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), next(gaps))
        await asyncio.gather(*running)
    sys.stdout.write(json.dumps(counts) + "\n")


def _running_orchestrators() -> list[str]:
    """The orchestrators of the stack that ``make up`` started.

    Raises:
        typer.Exit: there is none; the reason is on stderr.
    """
    settings = Stack(Path(os.environ.get("STACK_DIRECTORY") or CHECKOUT / "var")).settings()
    if "ENVIRONMENT_FILE" not in settings:
        sys.stderr.write("error: no stack with our services was started here; start it with: make up\n")
        raise typer.Exit(1)
    environment = Environment.parse(Path(settings["ENVIRONMENT_FILE"]).read_text())
    return [target.url for target in environment.targets if target.kind == "orchestrator"]


def main(
    requests: Annotated[Path, typer.Argument(help="JSON file: a list of requests, sent in turn.")],
    orchestrators: Annotated[list[str] | None, typer.Argument(help="Base URLs; default: the running stack's.")] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="Sessions per second.")] = SESSIONS_PER_SECOND,
    bursty: Annotated[bool, typer.Option("--bursty", help="Let the rate jump up and down.")] = False,
) -> None:
    """Send sessions until SIGTERM or Ctrl-C."""
    if not orchestrators:
        orchestrators = _running_orchestrators()
        sys.stderr.write(f"{rate:g} sessions a second to {', '.join(orchestrators)}; Ctrl-C ends it\n")
    asyncio.run(_send(orchestrators, json.loads(requests.read_text()), rate, bursty=bursty))


if __name__ == "__main__":
    typer.run(main)
