"""One server under supervision: its process, its state, and how it is brought up and down."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from typing import Any

import psutil

from deploy.embedded.guard import Guard
from deploy.embedded.process import Process
from deploy.embedded.server import Server, ServerError

# Between two questions to a server that does not answer yet.
CHECK_PAUSE = timedelta(milliseconds=100)
# One question; a server that accepts and says nothing must not hold up the start.
CHECK_TIMEOUT = timedelta(seconds=10)


class State(StrEnum):
    """The state of a server."""

    STOPPED = "stopped"
    PREPARING = "preparing"  # downloads, builds, initialises
    WAITING = "waiting"  # for the servers that it needs
    STARTING = "starting"  # its process runs and does not answer yet
    RUNNING = "running"
    SILENT = "silent"  # its process runs but does not answer any more
    DEAD = "dead"  # it ended by itself, or never came up
    EXTERNAL = "external"  # the user's own server is used


class Unit:
    """Supervises one server.

    Args:
        server: What it is.
        guard: Is told the process group of each process that is started.
        report: Called after each change of state.
        kind: How its process is started.
    """

    def __init__(
        self, server: Server, guard: Guard, report: Callable[[str, str], None], kind: type[Process] = Process
    ) -> None:
        self.server = server
        self.state = State.STOPPED
        self.detail = ""
        self.process: Process | None = None
        self._guard = guard
        self._report = report
        self._kind = kind
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False

    def _enter(self, state: State, detail: str = "") -> None:
        self.state, self.detail = state, detail
        self._report(self.server.name, f"{state}: {detail}" if detail else str(state))

    async def bring_up(self, needs: Callable[[], Awaitable[None]]) -> None:
        """Prepare and start the server, and return when it answers.

        Args:
            needs: Waits for the servers that this one needs.

        Raises:
            ServerError: It did not come up; its process is stopped.
        """
        self._stopping = False
        try:
            self._enter(State.PREPARING)
            await asyncio.to_thread(self.server.fetch)
            await self.server.prepare()
            if self.server.after:
                self._enter(State.WAITING, f"for {', '.join(self.server.after)}")
                await needs()
            await self.server.before_start()
            self._enter(State.STARTING)
            self._spawn()
            await self._until_it_answers()
            await self.server.settle()
        except asyncio.CancelledError:
            await self.take_down()
            raise
        except Exception as error:  # each server's tools have errors of their own; all end its start
            reason = str(error) or type(error).__name__
            await self.take_down()
            self._enter(State.DEAD, reason)
            raise ServerError(f"{self.server.name}: {reason}") from error
        self._enter(State.RUNNING)

    def _spawn(self) -> None:
        log = self.server.directory.log(self.server.name)
        self.process = self._kind(self.server.directory, self.server.command(), log, self.server.stop_signal)
        self._guard.add(self.process.pid)
        self._watcher = asyncio.create_task(self._watch(self.process))

    async def _watch(self, process: Process) -> None:
        await process.ended.wait()
        if not self._stopping and self.state is State.RUNNING:
            await process.stop(signal.SIGKILL, timedelta(0))  # its children do not outlive it
            self._guard.discard(process.pid)
            self._enter(State.DEAD, _how_it_ended(process))

    async def _until_it_answers(self) -> None:
        process = self.process
        assert process is not None  # noqa: S101 - spawned by the caller
        deadline = time.monotonic() + self.server.start_deadline.total_seconds()
        problem = "it was never asked"
        while time.monotonic() < deadline:
            if process.ended.is_set():
                raise ServerError(f"{_how_it_ended(process)}; {self._tail()}")
            problem = await self._problem()
            if not problem:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(process.ended.wait(), CHECK_PAUSE.total_seconds())
        raise ServerError(f"does not answer within {self.server.start_deadline}: {problem}; {self._tail()}")

    async def _problem(self) -> str:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT.total_seconds()):
                await self.server.check()
        except Exception as error:  # noqa: BLE001 - each server's client has its own; all mean "not ready"
            return f"{type(error).__name__}: {error}"
        return ""

    def _tail(self) -> str:
        log = self.server.directory.log(self.server.name)
        lines = log.read_text(errors="replace").splitlines()[-4:]
        return f"log {log}: {' | '.join(lines)}"

    async def take_down(self) -> None:
        """Stop the process, if there is one, and wait until it has ended."""
        self._stopping = True
        if self.process is not None:
            await self.process.stop(self.server.stop_signal, self.server.stop_grace)
            self._guard.discard(self.process.pid)
            self.process = None
        if self.state is not State.STOPPED:
            self._enter(State.STOPPED)

    def send(self, number: int) -> None:
        """Send a signal to the process.

        Raises:
            ServerError: There is none.
        """
        if self.process is None or self.process.ended.is_set():
            raise ServerError(f"{self.server.name} is {self.state}: there is no process to signal")
        self.process.send(number)

    async def status(self) -> dict[str, Any]:
        """What people and programs want to know about it; a running server is asked whether it answers."""
        state, detail = self.state, self.detail
        process = self.process
        if state is State.RUNNING:
            problem = await self._problem()
            if problem and self.state is State.RUNNING:
                state, detail = State.SILENT, problem
            else:
                state, detail = self.state, self.detail
        alive = process is not None and not process.ended.is_set()
        return {
            "name": self.server.name,
            "state": str(state),
            "detail": detail,
            "pid": process.pid if process is not None and alive else None,
            "uptime_s": round(time.monotonic() - process.started_at, 1) if process is not None and alive else None,
            "rss_mb": _resident_megabytes(process.pid) if process is not None and alive else None,
            "urls": self.server.urls(),
            "log": str(self.server.directory.log(self.server.name)),
        }


def _how_it_ended(process: Process) -> str:
    code = process.exit_code or 0
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _resident_megabytes(pid: int) -> float:
    """Resident memory of a process and what it started, in MB (shared pages are counted in each)."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        leader = psutil.Process(pid)
        for process in (leader, *leader.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
    return round(total / 1e6, 1)
