"""HTTP servers under the same load in turn, round by round: whatever else keeps the machine busy weighs on all."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from bench.listening import until_it_listens
from bench.machine import CHECKOUT
from bench.numbers import summary
from bench.wrk import Load, load
from deploy.demo.screen import Screen
from deploy.embedded.ports import Ports

CONNECTIONS: Final = (1, 16)
ROUND_S: Final = 3.0
WARM_UP_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Server:
    """What is measured: its address, and its process."""

    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """Return the processor time that the process has used."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


@dataclass(frozen=True, slots=True)
class Asked:
    """What wrk asks: with these headers, or as a Lua script says."""

    headers: Mapping[str, str] = field(default_factory=dict)
    script: Path | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One round: what wrk saw, and the seconds of processor time that an answer took, which others hardly change."""

    load: Load
    cpu: float


Found = dict[tuple[str, str, int], list[Measured]]
"""By server, what was asked, and number of connections."""


def in_turn(
    servers: Mapping[str, Server], asked: Mapping[str, Mapping[str, Asked]], *, rounds: int, screen: Screen
) -> Found:
    """Load every server with everything that it is to be asked, so many rounds.

    Args:
        servers: by name.
        asked: by the question's name: what each server is asked; one that has no such question is left out.
        rounds: how many.
        screen: where progress is shown.
    """
    found: Found = {}
    for number in range(rounds):
        for connections in CONNECTIONS:
            for what, questions in asked.items():
                for name, question in questions.items():
                    server = servers[name]
                    load(server.url, question.headers, question.script, connections=connections, seconds=WARM_UP_S)
                    before = server.cpu_seconds()
                    one = load(server.url, question.headers, question.script, connections=connections, seconds=ROUND_S)
                    cpu = (server.cpu_seconds() - before) / one.answers
                    found.setdefault((name, what, connections), []).append(Measured(one, cpu))
                    said = f"{name:<10} {what} {connections:>2} connections: {one.per_second:.0f}/s, {cpu * 1e6:.0f} us"
                    screen.say(f"  {number + 1}/{rounds} {said}")
    return found


def summarised(found: Found, *, bare: str = "bare") -> list[dict[str, Any]]:
    """Return a row per server, question and number of connections.

    Ratios are taken round by round: the bare server's answers per second over this one's, and this one's processor time
    over the bare one's. Above 1 the bare one is better.
    """
    rows = []
    for (name, what, connections), rounds in found.items():
        pairs = list(zip(found[bare, what, connections], rounds, strict=True))
        rows.append(
            {
                "server": name,
                "asked": what,
                "connections": connections,
                "per_second": summary([one.load.per_second for one in rounds]),
                "p50": summary([one.load.p50 for one in rounds])["p50"],
                "p99": summary([one.load.p99 for one in rounds])["p50"],
                "cpu": summary([one.cpu for one in rounds]),
                "rate_ratio": summary([least.load.per_second / one.load.per_second for least, one in pairs]),
                "cpu_ratio": summary([one.cpu / least.cpu for least, one in pairs]),
                "rounds": [asdict(one) for one in rounds],
            }
        )
    return rows


@contextmanager
def started(path: str, commands: Mapping[str, list[str]]) -> Iterator[dict[str, Server]]:
    """Start modules of ours that serve on a port, which is their last argument, until the block ends."""
    ports = Ports()  # kept until the end: with it goes the reservation
    processes: list[subprocess.Popen[bytes]] = []
    servers = {}
    try:
        for name, command in commands.items():
            port = ports.any()
            whole = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", *command, str(port)]
            processes.append(subprocess.Popen(whole, cwd=CHECKOUT))  # noqa: S603 - our own module
            until_it_listens(processes[-1], port)
            servers[name] = Server(f"http://127.0.0.1:{port}{path}", processes[-1].pid)
        yield servers
    finally:
        for process in processes:
            process.terminate()
            process.wait(timeout=15)
        ports.close()
