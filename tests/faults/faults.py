"""Makes one fault happen for real, and takes it away again: signals, proxies, a limit on file size, a moved folder."""

import asyncio
import fcntl
import os
import resource
import signal
import subprocess
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Final

import psutil

from deploy.embedded.control import StackError
from tests.faults.cells import NETWORK, Cell
from tests.faults.environment import ProxiedEnvironment, ProxiedEnvironments
from tests.helpers import eventually
from tests.world.processes import Process, second_worker

# Names of processes where they are not those of the systems.
PROCESSES: Final = {"artifact-store": "versitygw", "slack": "slack-emulator"}
LASTS: Final = {
    "killed": timedelta(seconds=0.5),
    "stopped": timedelta(seconds=4),
    "twice": timedelta(seconds=24),  # an attempt's 20 s, and time for the second one to be at work
    "late": timedelta(seconds=24),
    "slow": timedelta(seconds=5),
}
USUALLY: Final = timedelta(seconds=3)
UP_AGAIN: Final = timedelta(seconds=60)


class Fault:
    """The fault of one cell.

    Args:
        environments: servers and proxies.
        env: the environment that is hit.
        cell: which fault.
    """

    def __init__(self, environments: ProxiedEnvironments, env: ProxiedEnvironment, cell: Cell) -> None:
        self._environments = environments
        self._env = env
        self._cell = cell
        self._process = PROCESSES.get(cell.system, cell.system)
        self._second = AsyncExitStack()
        self._lock: IO[bytes] | None = None
        self.lasts = LASTS.get(cell.fault, USUALLY)

    async def inject(self) -> None:
        """Make it happen; returns when it has begun."""
        match self._cell.fault:
            case "killed":
                await self._send(signal.SIGKILL)
            case "stopped":
                await self._send(signal.SIGSTOP)
            case "twice":
                _, first = await self._status()
                assert first is not None, "there is no worker"
                log = self._env.directory / "log" / f"worker-2-{self._cell.id}.log"
                worker = await self._second.enter_async_context(second_worker(first, log))
                self._second.push_async_callback(_drain, worker)
                await self._send(signal.SIGSTOP)
            case "disk_full":
                await self._limit(0)
            case "locked":
                self._lock = await self._take_the_archives_lock()
            case "late":
                pass  # the request is held at the wire: see runner.py
            case fault if self._cell.system == "archive":
                assert fault == "down"
                self._archive.rename(self._away)
            case fault:
                assert fault in NETWORK
                await self._environments.toxics.inject(self._cell.system, fault)

    async def heal(self) -> None:
        """Take it away; returns when what was hit answers again."""
        match self._cell.fault:
            case "killed":
                await self._restart()
            case "stopped" | "twice":
                await self._send(signal.SIGCONT)
            case "disk_full":
                await self._limit(resource.RLIM_INFINITY)
                if not await self._runs():
                    await self._restart()
            case "locked":
                if self._lock is not None:
                    self._lock.close()
            case "late":
                pass
            case _ if self._cell.system == "archive":
                if self._away.exists():
                    self._away.rename(self._archive)
            case _:
                await self._environments.toxics.heal()

    async def end(self) -> None:
        """End the second worker, if there is one: it drains, as a deploy would have it."""
        await self._second.aclose()

    # --- processes

    async def _send(self, number: signal.Signals) -> None:
        await asyncio.to_thread(self._environments.owner_of(self._process).kill, self._process, number)

    async def _status(self) -> tuple[str, int | None]:
        stack = self._environments.owner_of(self._process)
        statuses = await asyncio.to_thread(stack.status)
        return next((status.state, status.pid) for status in statuses if status.name == self._process)

    async def _runs(self) -> bool:
        return (await self._status())[0] == "running"

    async def _restart(self) -> None:
        stack = self._environments.owner_of(self._process)

        async def up() -> bool:
            try:
                await asyncio.to_thread(stack.restart, self._process)
            except StackError as error:  # what it needs is not there yet, or it is being started
                raise AssertionError(str(error)) from error
            return True

        await eventually(up, UP_AGAIN)

    async def _limit(self, size: int) -> None:
        """Let no file of the process grow beyond `size`: a write then fails with EFBIG, on a full disk with ENOSPC."""
        _, pid = await self._status()
        if pid is None:
            return
        with suppress(psutil.NoSuchProcess):
            leader = psutil.Process(pid)
            for process in (leader, *leader.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    await asyncio.to_thread(_limit_one, process, size)

    # --- the archive

    @property
    def _archive(self) -> Path:
        return Path(self._env.settings["ARCHIVE_REPOSITORY"])

    @property
    def _away(self) -> Path:
        return self._archive.with_name("archive-away")

    async def _take_the_archives_lock(self) -> IO[bytes]:
        """Take it as another writer would: once the worker, who may be writing, has given it back."""
        handle = (self._archive / "constitution-archive.lock").open("ab")

        def taken() -> bool:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise AssertionError("the archive's lock is held") from error
            return True

        try:
            await eventually(taken)
        except BaseException:  # a cancel too
            handle.close()
            raise
        return handle


async def _drain(worker: Process) -> None:
    with suppress(subprocess.TimeoutExpired):
        await asyncio.to_thread(worker.stop)


def _limit_one(process: psutil.Process, size: int) -> None:
    """As the user of that process: a limit of another user's process takes a capability that root may lack."""
    soft = "unlimited" if size == resource.RLIM_INFINITY else str(size)
    user = ("setpriv", "--reuid", str(process.uids().real), "--regid", str(process.gids().real), "--clear-groups")
    as_that_user = user if os.geteuid() == 0 else ()
    command = (*as_that_user, "prlimit", "--pid", str(process.pid), f"--fsize={soft}:")
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - numbers only
    if done.returncode != 0 and process.is_running():
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
