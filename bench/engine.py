"""Requests per second and latency of a policy engine, in turn with a bare endpoint that only parses the same body."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from bench.fleet import REQUESTS, Fleet
from bench.load import Round, load
from bench.machine import CHECKOUT
from bench.numbers import summary
from bench.results import DIRECTORY, measuring
from bench.runs import BenchError
from deploy.demo.screen import Screen
from deploy.embedded.ports import Ports

PATH: Final = "/v1/evaluate"
CONNECTIONS: Final = (1, 16)
ROUND_S: Final = 4.0
WARM_UP_S: Final = 1.0


def measure(screen: Screen, *, rounds: int) -> None:
    """Load both in turn, so many rounds; store ``engine``."""
    with Fleet(DIRECTORY / "stack", screen) as fleet, _bare() as bare, measuring("engine") as result:
        fleet.end(fleet.update("tool-use", "default"))
        fleet.runs.quiet(seconds=60)
        engine = urlsplit(fleet.settings["POLICY_ENGINE_1_URL"]).port
        if engine is None:
            raise BenchError("the policy engine's address has no port")
        found = asyncio.run(_rounds({"engine": engine, "bare": bare}, rounds, screen))
        result["rounds"] = rounds
        result["round_s"] = ROUND_S
        result["summary"] = _summarised(found)


async def _rounds(ports: dict[str, int], rounds: int, screen: Screen) -> dict[tuple[str, int], list[Round]]:
    now = datetime.now(UTC).isoformat()
    bodies = [json.dumps(request | {"time": now}).encode() for request in json.loads(REQUESTS.read_text())]
    found: dict[tuple[str, int], list[Round]] = {}
    for number in range(rounds):
        for connections in CONNECTIONS:
            for name, port in ports.items():
                await load(port, PATH, bodies, connections=connections, seconds=WARM_UP_S)
                one = await load(port, PATH, bodies, connections=connections, seconds=ROUND_S)
                found.setdefault((name, connections), []).append(one)
                screen.say(f"  {number + 1}/{rounds} {name:<6} {connections:>2} connections: {one.per_second:.0f}/s")
    return found


def _summarised(found: dict[tuple[str, int], list[Round]]) -> dict[str, Any]:
    summarised: dict[str, Any] = {}
    for connections in CONNECTIONS:
        of: dict[str, Any] = {}
        for name in ("engine", "bare"):
            rounds = found[name, connections]
            of[name] = {
                "per_second": summary([one.per_second for one in rounds]),
                "latency": summary([latency for one in rounds for latency in one.latencies]),
            }
        of["ratio"] = {
            "per_second": of["engine"]["per_second"]["p50"] / of["bare"]["per_second"]["p50"],
            "latency_p50": of["engine"]["latency"]["p50"] / of["bare"]["latency"]["p50"],
            "latency_p99": of["engine"]["latency"]["p99"] / of["bare"]["latency"]["p99"],
        }
        summarised[str(connections)] = of
    return summarised


@contextmanager
def _bare() -> Iterator[int]:
    ports = Ports()  # kept until the end: with it goes the reservation
    port = ports.any()
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "bench.bare", str(port)]
    server = subprocess.Popen(command, cwd=CHECKOUT)  # noqa: S603 - our own module
    try:
        _until_it_listens(server, port)
        yield port
    finally:
        server.terminate()
        server.wait(timeout=15)
        ports.close()


def _until_it_listens(server: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise BenchError("the bare endpoint did not start")
