"""Fan-out: one release asked of 10 to 50,000 replicas on loopback; seconds, memory, and bytes by number of targets.

A real constitution-service, a release of it, replicas by the thousand in a process (`bench.replicas` says what such a
replica does and what it does not), and the assessor's own sync (`bench.fanout_asker`), in turn with its lower bound.
"""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.listening import until_it_listens
from bench.machine import CHECKOUT
from bench.numbers import summary
from bench.replicas import address
from bench.results import DIRECTORY, measuring
from bench.runs import BenchError
from deploy.demo.screen import Screen
from deploy.embedded.ports import Ports
from deploy.embedded.stack import Stack
from tests.world.author import Author
from tests.world.files import EnvironmentFiles

SIZES: Final = (10, 100, 1_000, 10_000, 50_000)
ONCE: Final = 10_000  # from here on each is measured once: it takes most of a minute
REPEATED: Final = 3
A_PROCESS: Final = 12_500  # listening sockets: a process may usually open 20,000 files
LONGEST_S: Final = 400.0


async def _published(files: EnvironmentFiles, service: str) -> int:
    author = Author(files, service)
    try:
        result, lease = await author.publish(await author.next_draft())
        await author.release_lease(lease)
        return result.generation
    finally:
        await author.aclose()


@contextmanager
def _replicas(count: int, file: str, service: str) -> Iterator[tuple[int, list[subprocess.Popen[bytes]]]]:
    """Serve so many until the block ends; return their port and processes."""
    ports = Ports()
    port = ports.any()
    processes = []
    try:
        for first in range(0, count, A_PROCESS):
            many = min(A_PROCESS, count - first)
            said = [str(first), str(many), file, service, str(port)]
            command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "bench.replicas", *said]
            processes.append(subprocess.Popen(command, cwd=CHECKOUT))  # noqa: S603 - our own module
        for number, process in enumerate(processes):
            last = min((number + 1) * A_PROCESS, count) - 1
            until_it_listens(process, port, host=address(last), seconds=120)
        yield port, processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=60)
        ports.close()


def _asked(count: int, port: int, file: str, service: str, generation: int) -> dict[str, Any]:
    said = [str(count), str(port), file, service, str(generation)]
    ran = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "bench.fanout_asker", *said],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=LONGEST_S, check=False,
    )  # fmt: skip
    if ran.returncode != 0:
        raise BenchError(f"{count} targets were not asked: {ran.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    if found["converged"] != count or found["problems"]:
        raise BenchError(f"of {count} targets {found['converged']} obeyed; {found['problems']}")
    return found


def measure(screen: Screen, *, most: int) -> None:
    """Ask each number of targets up to ``most``, without laggards and with one in a hundred; store ``fanout``."""
    stack = Stack(DIRECTORY / "fanout-stack", environment={})
    stack.erase()
    with measuring("fanout") as result:
        try:
            with screen.timed("servers and constitution-service"):
                stack.start("constitution-service")
            settings = stack.settings()
            file, service = settings["ENVIRONMENT_FILE"], settings["CONSTITUTION_SERVICE_URL"]
            generation = asyncio.run(_published(EnvironmentFiles(Path(file).parent), service))
            rounds: list[dict[str, Any]] = []
            for count in (size for size in SIZES if size <= most):
                with _replicas(count, file, service) as (port, processes):
                    for late in (False, True):
                        for _ in range(1 if count >= ONCE else REPEATED):
                            for process in processes:
                                process.send_signal(signal.SIGUSR1 if late else signal.SIGUSR2)
                            time.sleep(0.2)
                            found = {"late": late, **_asked(count, port, file, service, generation)}
                            rounds.append(found)
                            screen.say(f"  {_line(found)}")
        finally:
            stack.erase()
        result["rounds"] = rounds
        result["summary"] = _summarised(rounds)


def _line(found: dict[str, Any]) -> str:
    late = "1 % late" if found["late"] else "none late"
    return (
        f"{found['targets']:>6} targets, {late}: {found['seconds']:.2f} s ({found['ratio']:.2f} of the bare loop), "
        f"{found['peak_rss'] / 2**20:.0f} MiB, heartbeat {found['largest_heartbeat']} B"
    )


def _summarised(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for targets, late in sorted({(found["targets"], found["late"]) for found in rounds}):
        same = [found for found in rounds if (found["targets"], found["late"]) == (targets, late)]
        largest = {
            name: max(found[name] for found in same)
            for name in ("peak_rss", "grown_by", "largest_heartbeat", "result_bytes", "attestation_bytes", "questions")
        }
        timed = {
            name: summary([found[name] for found in same])["p50"]
            for name in ("seconds", "cpu_seconds", "bare_seconds", "ratio", "sign_and_store_seconds", "verify_seconds")
        }
        rows.append({"targets": targets, "late": late, "rounds": len(same), **timed, **largest})
    return rows
