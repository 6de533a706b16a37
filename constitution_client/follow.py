"""Follows a run to its end: a live screen on a terminal, plain lines otherwise. Reads only; Ctrl-C stops nothing.

Every second it asks the run for its status. While no worker answers it says so and goes on asking: a worker may be
restarting, and that is exactly when somebody watches. The exit code is the outcome.
"""

import asyncio
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text
from temporalio.client import WorkflowExecutionStatus

from constitution.errors import ConstitutionError, TransportError
from constitution.messages import Outcome, Status
from constitution_client.connections import runs
from constitution_client.exit_codes import ExitCode
from constitution_client.output import clean, progress, result
from constitution_client.render import fitted, status_lines, step_line
from constitution_client.settings import settings
from constitution_client.temporal import Runs, troubles

POLL_SECONDS = 1.0  # a person reads no faster, and a query costs the worker a task

_CODES = {
    Outcome.COMPLETED: ExitCode.OK,
    Outcome.REJECTED: ExitCode.REFUSED,
    Outcome.ROLLED_BACK: ExitCode.ROLLED_BACK,
}


class _Screen:
    """Shows a status as it changes."""

    def __init__(self, workflow_id: str, live: Live | None) -> None:
        self._workflow_id = workflow_id
        self._live = live
        self._shown: dict[str, str] = {}
        self._lines: list[str] = []

    def _draw(self, lines: list[str], note: str = "") -> None:
        """Draw what fits; ``note`` comes last, below what was known before."""
        if self._live is None:
            return
        self._lines = lines
        width, height = self._live.console.size
        self._live.update(
            Text("\n".join(fitted([clean(line) for line in (*lines, *filter(None, [note]))], width, height)))
        )

    def show(self, status: Status, failing: tuple[str, ...] = ()) -> None:
        if self._live is not None:
            self._shown.pop("silence", None)
            self._draw(status_lines(self._workflow_id, status, failing))
            return
        for subject, line in (*_steps(status), *_facts(status)):
            self._say(subject, line)
        for trouble in failing:
            self._say(trouble.partition(",")[0], f"failing: {trouble}")
        self._shown.pop("silence", None)

    def close(self) -> None:
        """Take the screen away, because the same is printed as the result; else it stays."""
        if self._live is not None and sys.stdout.isatty():
            self._live.transient = True

    def silent(self, error: ConstitutionError) -> None:
        """Say that nobody answers; once per reason, not every second."""
        self._say("silence", f"no answer yet: {error.message}")

    def _say(self, subject: str, line: str) -> None:
        if self._shown.get(subject) == line:
            return
        self._shown[subject] = line
        if self._live is not None:
            self._draw(self._lines, line)
        else:
            progress(f"{time.strftime('%H:%M:%S', time.gmtime())}Z {line}")


def _steps(status: Status) -> Iterator[tuple[str, str]]:
    """Yield ``(subject, line)`` of where a run is; a line is said when it differs from the last of its subject."""
    yield "phase", f"phase {status.phase.value}"
    for step in status.steps:
        if step.state != "pending":
            yield f"step {step.name}", step_line(step.state, step.name, step.detail, step.last_error).strip()


def _facts(status: Status) -> Iterator[tuple[str, str]]:
    """Yield ``(subject, line)`` of a run's other facts."""
    if status.strategy:
        yield "strategy", f"watch: {status.strategy}"
    yield from ((f"predicted {number}", f"expected: {line}") for number, line in enumerate(status.predicted))
    if status.waiting_for:
        yield "waiting", f"waiting for {status.waiting_for}"
    if status.next_command and not status.outcome:
        yield "next", f"next: {status.next_command}"
    if status.approvers:
        yield "approvers", f"approved by {', '.join(status.approvers)}"
    yield from (
        (f"refusal {number} {refusal}", f"refused: {refusal}") for number, refusal in enumerate(status.refusals)
    )
    if status.verdict:
        yield "verdict", f"verdict {status.verdict.value}"
    if status.rollback_workflow:
        yield "rollback", f"rollback {status.rollback_workflow}"


async def follow(workflow_id: str, *, timeout: float | None, json: bool | None) -> ExitCode:  # noqa: ASYNC109 - see body
    """Follow a run, print its end, return its outcome as an exit code.

    Args:
        workflow_id: the run; the newest of that id.
        timeout: seconds after which to stop following (exit code 4); None follows to the end.
        json: value of ``--json/--text``.

    Raises:
        NotFoundError: there is no such run.
    """
    configured = settings()
    deadline = None if timeout is None else time.monotonic() + timeout
    connected = await runs(configured)
    await connected.describe(workflow_id)  # a wrong id is said at once, not waited for
    with _screen(workflow_id) as screen:
        while True:
            end = await _look(connected, workflow_id, screen)
            if end is not None:
                screen.close()
                break
            if deadline is not None and time.monotonic() >= deadline:
                progress(f"still going on after {timeout:g} s; next: constitution watch {shlex.quote(workflow_id)}")
                return ExitCode.WAITING
            try:
                await asyncio.sleep(POLL_SECONDS)
            except asyncio.CancelledError:  # Ctrl-C
                progress(f"no longer watching; the run goes on; next: constitution watch {shlex.quote(workflow_id)}")
                raise
    return _finish(workflow_id, end, json)


async def until_ready(connected: Runs, workflow_id: str, ready: Callable[[Status], bool], what: str) -> Status:
    """Show a run's steps until its status is ready, or the run has ended; return that status. Ctrl-C stops only this.

    Args:
        connected: the runs.
        workflow_id: the run; the newest of that id.
        ready: whether there is nothing more to wait for.
        what: is waited for, for the person.

    Raises:
        ConstitutionError: there is no such run, or nobody answered the first question.
    """
    status = await connected.status(workflow_id)
    if ready(status) or status.outcome is not None:
        return status
    progress(f"waiting for {what} of {workflow_id}; Ctrl-C stops the waiting only")
    screen = _Screen(workflow_id, None)
    while not ready(status) and status.outcome is None:
        screen.show(status)
        await asyncio.sleep(POLL_SECONDS)
        try:
            status = await connected.status(workflow_id)
        except TransportError as error:
            screen.silent(error)
    return status


async def _look(connected: Runs, workflow_id: str, screen: _Screen) -> Status | str | None:
    """Return the final status, or in words how a run that cannot be asked has closed; None while it is open."""
    try:
        description = await connected.describe(workflow_id)
        closed = description.status not in {None, WorkflowExecutionStatus.RUNNING}
        try:
            status = await connected.status(workflow_id)
        except TransportError as error:
            if closed and description.status is not None:
                return await _closed_without_worker(connected, workflow_id, description.status)
            screen.silent(error)
            return None
    except TransportError as error:
        screen.silent(error)
        return None
    screen.show(status, troubles(description))
    if not closed:
        return None
    if status.outcome is None and description.status is not None:
        return await _closed_without_worker(connected, workflow_id, description.status)
    return status


async def _closed_without_worker(connected: Runs, workflow_id: str, status: WorkflowExecutionStatus) -> str:
    try:
        await connected.result(workflow_id)
    except ConstitutionError as error:
        return f"{status.name.lower().replace('_', ' ')}: {error.message}"
    return "completed"


def _finish(workflow_id: str, end: Status | str, json: bool | None) -> ExitCode:
    if isinstance(end, Status) and end.outcome is not None:
        result({"workflow_id": workflow_id, **end.model_dump(mode="json")}, status_lines(workflow_id, end), json)
        if end.workflow == "ConstitutionRollback" and end.outcome is Outcome.ROLLED_BACK:
            return ExitCode.OK  # what was asked for
        return _CODES[end.outcome]
    result(
        {"workflow_id": workflow_id, "outcome": None, "closed": str(end)},
        [f"{workflow_id} {end}", "next: constitution status  # lists its guard and rollback while they run"],
        json,
    )
    return ExitCode.OK if end == "completed" else ExitCode.REFUSED


@contextmanager
def _screen(workflow_id: str) -> Iterator[_Screen]:
    if not sys.stderr.isatty():
        progress(f"watching {workflow_id}")
        yield _Screen(workflow_id, None)
        return
    with Live(console=Console(stderr=True), refresh_per_second=4) as live:
        screen = _Screen(workflow_id, live)
        live.update(Text(f"watching {clean(workflow_id)}"))
        yield screen
