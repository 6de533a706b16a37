"""``python -m bench [name …]``: measure, store ``var/bench/NAME.json``, write the tables of bench/README.md.

Exit 0 if everything was measured, 1 if something did not happen that was to be measured, or the machine is busy with
other work: then no table is written, unless ``--busy`` says that it may. No time is ever judged.
"""

import sys
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import typer

from bench import engine, fanout, overhead, ratios, read, release, resume, setup, tables, undo, verify
from bench.machine import moment
from bench.runs import BenchError
from bench.watch.__main__ import main as simulate
from constitution_client.exit import leave
from deploy.demo.operator import CommandFailedError
from deploy.demo.screen import Screen
from deploy.embedded.control import StackError

RELEASES = 50
ANOMALIES = 6
KILLS = 20
COMPARED = 20
ROUNDS = 5
BAKES = 200
TARGETS = 10_000
QUIET = 1.0  # load average of the last minute, before


class Name(StrEnum):
    """What can be measured. ``memory`` is measured in the same run as ``release``."""

    RELEASE = "release"
    MEMORY = "memory"
    UNDO = "undo"
    OVERHEAD = "overhead"
    RESUME = "resume"
    ENGINE = "engine"
    VERIFY = "verify"
    READ = "read"
    FANOUT = "fanout"
    WATCH = "watch"
    SETUP = "setup"
    TABLES = "tables"


DEFAULT = [
    Name.RELEASE,
    Name.UNDO,
    Name.OVERHEAD,
    Name.RESUME,
    Name.READ,
    Name.ENGINE,
    Name.VERIFY,
    Name.FANOUT,
    Name.WATCH,
]
"""``watch`` simulates (`bench.watch`) and writes docs/watch.md. ``setup`` downloads everything anew, so it runs only
when it is named. ``tables`` measures nothing."""


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(  # noqa: PLR0917 - options of a command line
    names: Annotated[list[Name] | None, typer.Argument(help="Default: all but setup and tables.")] = None,
    releases: Annotated[int, typer.Option(min=2, help="Of `release`: updates and rollbacks in turn.")] = RELEASES,
    anomalies: Annotated[int, typer.Option(min=1, help="Of `undo`.")] = ANOMALIES,
    kills: Annotated[int, typer.Option(min=1, help="Of `resume`.")] = KILLS,
    compared: Annotated[int, typer.Option(min=1, help="Of `overhead`: releases with each.")] = COMPARED,
    rounds: Annotated[int, typer.Option(min=1, help="Of `read`, `engine` and `verify`.")] = ROUNDS,
    targets: Annotated[
        int, typer.Option(min=10, max=50_000, help="Of `fanout`: the most; 10, 100 … up to it.")
    ] = TARGETS,
    busy: Annotated[bool, typer.Option("--busy", help="Measure although the machine does other work, too.")] = False,
) -> None:
    """Measure on real servers, which are started in var/bench/stack and stopped again."""
    screen = Screen(time.time())
    wanted = list(names or DEFAULT)
    if wanted != [Name.TABLES]:
        require_quiet(moment()["load_1min"], busy=busy)
    runs: dict[Name, Callable[[], None]] = {
        Name.RELEASE: lambda: release.measure(screen, releases=releases),
        Name.UNDO: lambda: undo.measure(screen, anomalies=anomalies),
        Name.OVERHEAD: lambda: overhead.measure(screen, rounds=compared),
        Name.RESUME: lambda: resume.measure(screen, kills=kills),
        Name.READ: lambda: read.measure(screen, rounds=rounds),
        Name.ENGINE: lambda: engine.measure(screen, rounds=rounds),
        Name.VERIFY: lambda: verify.measure(screen, rounds=rounds),
        Name.FANOUT: lambda: fanout.measure(screen, most=targets),
        Name.WATCH: lambda: simulate(runs=BAKES),
        Name.SETUP: lambda: setup.measure(screen),
    }
    if Name.MEMORY in wanted and Name.RELEASE not in wanted:
        wanted.append(Name.RELEASE)
    for name, measure in runs.items():
        if name in wanted:
            screen.chapter(f"{name}: load average {moment()['load_1min']}")
            measure()
            tables.write()
            if not busy:  # what was measured beside other work is no mark to measure others by
                ratios.record()
    screen.result(f"bench/README.md tells: {', '.join(tables.write()) or 'nothing yet'}")


def require_quiet(load: float, *, busy: bool) -> None:
    """Refuse to measure on a machine that does other work.

    Args:
        load: average of the last minute.
        busy: whether somebody said that it may be.

    Raises:
        BenchError: it is above ``QUIET``, and nobody said so.
    """
    if load > QUIET and not busy:
        raise BenchError(
            f"the load average is {load}, above {QUIET}: wait until the machine is quiet, or say --busy "
            "(make bench BUSY=1); the table then says how busy it was"
        )


if __name__ == "__main__":
    code = 0
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except (BenchError, CommandFailedError, StackError) as error:
        sys.stderr.write(f"nothing was measured: {error}\n")
        code = 1
    sys.stdout.flush()
    leave(code)
