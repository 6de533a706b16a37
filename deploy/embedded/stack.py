"""A stack of real servers as a Python object: what `make up`, the demo and the tests all use.

    with Stack(Path("var"), ["postgres", "kafka"]) as stack:
        connect(stack.settings()["DATABASE_URL"])

All methods block; `async with` runs the start and the stop in a thread.
"""

import asyncio
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploy.embedded.cache import locked
from deploy.embedded.catalogue import ALL_NAMES
from deploy.embedded.control import LOCK, NotRunning, StackError, call
from deploy.embedded.envfile import read_settings
from deploy.embedded.external import Remembered, common_settings, external_settings
from deploy.embedded.leftovers import MARKER
from deploy.embedded.machine import check_machine
from deploy.embedded.postgres import outside
from deploy.embedded.process import Started
from deploy.embedded.stack_directory import CHECKOUT

# A supervisor that has not opened its control channel by then has failed, in seconds. It may have to wait until a
# predecessor has stopped everything.
SUPERVISOR_DEADLINE = 90.0

HEALTHY = frozenset({"running", "external"})


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One line of news about one server; `seconds` since the supervisor started."""

    server: str
    text: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """One server's state. `state`: running, external, or one of deploy.embedded.unit.State."""

    name: str
    state: str
    detail: str
    pid: int | None
    uptime_s: float | None
    rss_mb: float | None
    urls: Mapping[str, str]
    log: str | None

    @property
    def healthy(self) -> bool:
        """Whether it runs and answers."""
        return self.state in HEALTHY


IN_USE = "in-use.lock"
"""Held by a program that uses the stacks below its folder for as long as it runs, also those that outlive it."""


def _is_held(lock: Path) -> bool:
    """Whether a program holds this lock file."""
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class Stack:
    """The servers of one directory.

    Args:
        directory: Where they keep everything. A stack that already runs there is used.
        servers: Names of the servers that `start` starts; all by default.
        environment: Where settings of the user's own servers are looked for; the process's by default.
            Tests give an empty one, so that they never touch a server that they did not start.
        overrides: Settings on top of the servers' own, for our services.
        attached: Whether the servers end with this process, however it ends. `make up` gives False.
        progress: Called with news while a method waits.
    """

    def __init__(
        self,
        directory: Path,
        servers: Collection[str] = ALL_NAMES,
        *,
        environment: Mapping[str, str] | None = None,
        overrides: Mapping[str, str] | None = None,
        attached: bool = True,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.directory = directory.resolve()
        self.servers = tuple(servers)
        self._environment = os.environ if environment is None else environment
        self._overrides = dict(overrides or {})
        self._attached = attached
        self._progress = progress
        self._supervisor: Started | None = None

    def start(self, *names: str) -> None:
        """Start servers and return when each answers; those that run are left alone.

        If this call started the supervisor and a server does not come up, everything is stopped again.

        Args:
            names: Which; by default those given to the constructor.

        Raises:
            StackError: A server did not come up or died earlier; the text names it.
        """
        fresh = self._launch()
        try:
            self._call(self._request("start", names))
            if self._supervisor is not None and not self._attached:
                self._call({"verb": "detach"})  # not before: an interrupted start leaves nothing
        except BaseException:  # also Ctrl-C: the servers of this call must not outlive it
            if fresh:
                self.stop()
            raise

    def begin(self, *names: str) -> None:
        """Start servers in the background and return at once; a later `start` of one waits for it.

        Args:
            names: Which; by default those given to the constructor.
        """
        self._launch()
        self._call(self._request("begin", names))

    def _request(self, verb: str, names: tuple[str, ...]) -> dict[str, Any]:
        return {
            "verb": verb,
            "names": list(names or self.servers),
            "external": external_settings(self._environment, Remembered(self._run).ours(self.settings())),
            "settings": common_settings(self._environment) | self._overrides,
        }

    def forget(self, *names: str) -> None:
        """Use the stack's own servers from now on where the user's were given before.

        Raises:
            StackError: The stack runs with one of them.
        """
        remembered = Remembered(self._run)
        known = remembered.read().keys() & set(names)
        if known and self.answers():
            raise StackError(f"the stack runs with your own {', '.join(sorted(known))}; make down")
        if known:
            remembered.forget(known)

    def stop(self) -> None:
        """Stop all servers and the supervisor; returns when no process is left. Nothing runs: nothing happens."""
        try:
            self._call({"verb": "stop"})
        except NotRunning:
            if self._supervisor is None:
                return
        self._until_the_supervisor_has_ended()

    def erase(self) -> None:
        """Stop all servers and delete their data; so too of the stacks below this directory (a kept demo).

        Raises:
            StackError: One below belongs to a program that still runs (a test run, a demo); nothing was deleted.
        """
        for held in filter(_is_held, self.directory.glob(f"*/{IN_USE}")):
            raise StackError(f"a program that still runs uses {held.parent}; wait for it")
        locks = [*self.directory.glob(f"*/run/{LOCK}"), *self.directory.glob(f"*/*/run/{LOCK}")]
        below = [Stack(lock.parents[1], environment={}) for lock in locks]
        for stack in below:
            if stack.attached():
                raise StackError(f"a program that still runs uses the servers in {stack.directory}; wait for it")
        for stack in (self, *below):
            stack.stop()
            shutil.rmtree(outside(stack.directory), ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def attached(self) -> bool:
        """Whether the servers run here and end with the program that started them."""
        try:
            return bool(self._call({"verb": "ping"})["attached"])
        except (NotRunning, FileNotFoundError):
            return False

    def status(self) -> list[ServerStatus]:
        """Every server's state, in order of name; running servers are asked whether they answer.

        Raises:
            NotRunning: No stack runs in this directory.
        """
        return sorted((ServerStatus(**entry) for entry in self._call({"verb": "status"})), key=lambda entry: entry.name)

    def restart(self, name: str) -> None:
        """Stop one server if it runs, start it, and return when it answers. Ports and data stay.

        Raises:
            StackError: It did not come up, or there is none of that name.
            NotRunning: No stack runs in this directory.
        """
        self._call({"verb": "restart", "name": name})

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to one server's process, and to nothing else.

        Raises:
            StackError: It has no process.
            NotRunning: No stack runs in this directory.
        """
        self._call({"verb": "kill", "name": name, "signal": int(number)})

    def settings(self) -> dict[str, str]:
        """The settings by which clients reach the servers (the content of stack.env); secrets among them."""
        return read_settings(self.directory / "stack.env")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    # --- the supervisor

    @property
    def _run(self) -> Path:
        return self.directory / "run"

    def _call(self, request: dict[str, Any]) -> Any:
        return call(self._run, request, lambda message: self._progress(Progress(**message)))

    def _launch(self) -> bool:
        """Start the supervisor if none answers; return whether this call did."""
        if self.answers():
            return False
        check_machine()
        self.directory.mkdir(parents=True, exist_ok=True)
        logs = self.directory / "log"
        logs.mkdir(mode=0o700, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if name != MARKER}
        log = logs / "supervisor.log"
        supervisor = self._start_supervisor(environment, log)
        deadline = time.monotonic() + SUPERVISOR_DEADLINE
        while time.monotonic() < deadline:
            if self.answers():
                break
            if supervisor.poll() not in {None, 0}:
                raise StackError(f"the supervisor ended with exit code {supervisor.returncode}: see {log}")
            time.sleep(0.02)
        else:
            supervisor.terminate()
            raise StackError(f"the supervisor does not answer within {SUPERVISOR_DEADLINE} s: see {log}")
        if supervisor.poll() == 0:
            return False  # another one was quicker
        self._supervisor = supervisor
        return True

    def _start_supervisor(self, environment: dict[str, str], log: Path) -> Started:
        with log.open("ab") as output:
            # Its own session: a Ctrl-C in this terminal reaches it only through this process.
            return subprocess.Popen(
                [sys.executable, "-m", "deploy.embedded.supervisor", str(self.directory)],
                cwd=CHECKOUT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def answers(self) -> bool:
        """Whether a supervisor runs here."""
        try:
            call(self._run, {"verb": "ping"}, lambda _: None)
        except (NotRunning, FileNotFoundError):
            return False
        return True

    def _until_the_supervisor_has_ended(self) -> None:
        if self._supervisor is not None:
            self._supervisor.wait()
            if self._supervisor.stdin is not None:
                self._supervisor.stdin.close()
            self._supervisor = None
            return
        # Somebody else's child: it holds this lock to its very end.
        with locked(self._run / LOCK):
            return


def read_json(statuses: list[ServerStatus]) -> str:
    """The statuses as JSON for programs."""
    return json.dumps([{**vars(status), "urls": dict(status.urls)} for status in statuses], indent=1)
