"""``python -m deploy.demo``: exit 0 if every release ended as it must and every system agrees, else 1.

A wrong argument or setting is exit 2.

``KEEP=1`` leaves all of it running. ``FAST=1`` tells the same story with shorter waits. ``STOLEN=1`` tells another one:
what somebody can do who stole the runbook worker. ``SIGSTORE=1`` has the author sign keylessly, at a private Sigstore
that is started besides. ``DEMO_STARTED`` (unix seconds)
is when the person typed ``make demo``.
"""

import fcntl
import json
import shlex
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from constitution_client.exit import leave
from deploy.demo.operator import CommandFailedError
from deploy.demo.runs import StoryError
from deploy.demo.screen import Screen
from deploy.demo.story import Story, fresh
from deploy.demo.traffic import SESSIONS_PER_SECOND
from deploy.embedded import development
from deploy.embedded.control import StackError
from deploy.embedded.services import TARGETS
from deploy.embedded.sigstore.servers import SIGSTORE_NAMES
from deploy.embedded.stack import IN_USE, Stack

FAST_PACE = development.Pace(baseline=18, watch=8, sync=5)
FAST_SESSIONS_PER_SECOND = 40.0
"""Few seconds need more traffic. Simulated, 16 s before and 8 s after: with 40 a second 200 of 200 good watches ended
as ``ok`` and 99 of 100 doublings were seen; with 20 a second 179 and 78."""

DIRECTORY = Path(__file__).resolve().parents[2] / "var" / "demo"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    *,
    keep: Annotated[bool, typer.Option(envvar="KEEP", help="Leave all of it running.")] = False,
    fast: Annotated[bool, typer.Option(envvar="FAST", help="Shorter waits, and more traffic instead.")] = False,
    stolen: Annotated[bool, typer.Option(envvar="STOLEN", help="Another story: the runbook worker is stolen.")] = False,
    sigstore: Annotated[
        bool, typer.Option(envvar="SIGSTORE", help="The author signs keylessly, one of the board by passkey.")
    ] = False,
    started: Annotated[float | None, typer.Option(envvar="DEMO_STARTED", help="Unix seconds; default: now.")] = None,
) -> None:
    """Start the servers, tell the story, show what every system says."""
    raise typer.Exit(
        _demonstrate(
            time.time() if started is None else started, keep=keep, fast=fast, stolen=stolen, sigstore=sigstore
        )
    )


def _demonstrate(started: float, *, keep: bool, fast: bool, stolen: bool, sigstore: bool) -> int:
    screen = Screen(started)
    screen.timings.append(("Python environment", screen.elapsed()))
    with the_only_demo(DIRECTORY) as refused:
        if refused:
            screen.say(refused, style="bold red")
            return 1
        return _tell(screen, keep=keep, fast=fast, stolen=stolen, sigstore=sigstore)


@contextmanager
def the_only_demo(directory: Path) -> Iterator[str]:
    """Hold the place of the demo; yield why it cannot be had: another demo runs, or one was kept. Else nothing."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / IN_USE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield f"another demo runs in {directory}; wait for it, or run this one in another checkout"
            return
        stack = directory / "stack"
        kept = Stack(stack).answers()
        yield f"a demo that was kept runs in {stack}; to end it: {stop_command(stack)}" if kept else ""


def stop_command(directory: Path) -> str:
    """The command that stops the stack of a demo that was kept."""
    return shlex.join([".venv/bin/python", "-m", "deploy.embedded", "down", "--directory", str(directory)])


def _tell(screen: Screen, *, keep: bool, fast: bool, stolen: bool, sigstore: bool) -> int:
    stack = Stack(
        fresh(DIRECTORY / "stack"),
        attached=not keep,
        progress=lambda news: screen.say(f"  {news.server:<21} {news.text}", style="dim"),
    )
    try:
        screen.chapter("real servers, from packages")
        if fast:
            shorten(stack, screen)
        with screen.timed("servers and services answer"):
            if sigstore:
                stack.start(*SIGSTORE_NAMES)  # first: the trust policy that the stack makes pins its root
            stack.start()  # also where Prometheus must be built first: a build beside the traffic would disturb it
        setup_s = screen.elapsed()
        story = Story(stack, screen, sessions_per_second=FAST_SESSIONS_PER_SECOND if fast else SESSIONS_PER_SECOND)
        if stolen:
            story.tell_of_the_stolen_worker()
            screen.result("a stolen worker loaded nothing untested and confirmed nothing unwatched")
            return 0
        return _told(story, screen, stack, setup_s, keep=keep)
    except (StoryError, CommandFailedError, StackError) as error:
        screen.say(f"the demo failed: {error}", style="bold red")
        screen.say(f"logs: {stack.directory / 'log'}; try again with KEEP=1 to look at the servers")
        return 1
    finally:
        if keep:
            screen.say(f"left running; stop it with: {stop_command(stack.directory)}")
        else:
            with screen.timed("every server stopped"):
                stack.stop()


def shorten(stack: Stack, screen: Screen) -> None:
    """Write the environment with shorter waits before the stack would write its own, and say so."""
    home = stack.directory / development.ENVIRONMENT
    home.mkdir(mode=0o700)
    placeholders = {name: (kind, f"http://{name}.invalid") for name, kind in TARGETS.items()}  # the stack fills them in
    development.write_environment(home / "environment.toml", placeholders, FAST_PACE)
    usual, fast = development.PACE, FAST_PACE
    screen.say(
        f"  FAST=1: a baseline of {fast.baseline} s (else {usual.baseline}), a watch of {fast.watch} s "
        f"({usual.watch}), {fast.sync} s for sync ({usual.sync}), {FAST_SESSIONS_PER_SECOND:.0f} sessions a second "
        f"({SESSIONS_PER_SECOND:.0f}); nothing else differs"
    )


def _told(story: Story, screen: Screen, stack: Stack, setup_s: float, *, keep: bool) -> int:
    agreed = story.tell()
    report = story.report(agreed, setup_s=setup_s)
    (DIRECTORY / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    screen.table(
        "What every system says",
        ("system", "generation", "checksum", "detail"),
        [
            (r.system, str(r.generation or ""), (r.checksum or "")[:19], ("" if r.agrees else "DISAGREES: ") + r.detail)
            for r in agreed.readings
        ],
    )
    screen.table(
        "Releases",
        ("version", "generation", "outcome", "seconds", "detail"),
        [(r.version, str(r.generation or ""), r.outcome, f"{r.duration_s:.1f}", r.detail) for r in story.runs],
    )
    screen.table(
        "Where the time went", ("what", "seconds"), [(what, f"{seconds:.1f}") for what, seconds in screen.timings]
    )
    ui = stack.settings().get("TEMPORAL_UI_URL", "")
    screen.result(
        f"{'every system agrees' if agreed.agrees else 'THE SYSTEMS DISAGREE'}; report: {DIRECTORY / 'report.json'}"
    )
    screen.result(f"the last release's receipt, offline: {story.verify_command}")
    if keep:
        screen.result(f"Temporal UI: {ui}")
    return 0 if agreed.agrees else 1


if __name__ == "__main__":
    code = 1
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except Exception:  # noqa: BLE001 - the exit goes through `leave`, whatever happened
        traceback.print_exc()
    leave(code)
