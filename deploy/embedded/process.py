"""One child process: its own session and log, told to stop by the kernel if the supervisor dies."""

import asyncio
import os
import signal
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Protocol

from deploy.embedded.server import Command, base_environment, guarded
from deploy.embedded.stack_directory import StackDirectory

# A log that is larger than this when its server starts is moved to NAME.log.1.
LOG_LIMIT_BYTES = 20_000_000


class Started(Protocol):
    """What `subprocess.Popen` is to a process."""

    pid: int
    returncode: int | Any
    stdin: IO[bytes] | None

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""

    def wait(self) -> int:
        """Return its exit code when it has ended."""

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended."""

    def terminate(self) -> None:
        """Send it SIGTERM, unless it has ended."""


class Process:
    """A started process; create it from the main thread (the kernel's death signal follows the thread).

    Args:
        directory: Its stack.
        command: What to run.
        log: Where its output goes, appended.
        death_signal: What the kernel sends it when the supervisor ends.

    Raises:
        OSError: The program cannot be started.
    """

    def __init__(self, directory: StackDirectory, command: Command, log: Path, death_signal: signal.Signals) -> None:
        if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
            log.replace(log.with_name(log.name + ".1"))
        self._directory = directory
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, f"--- started {datetime.now(UTC).isoformat(timespec='seconds')}\n".encode())
        finally:
            os.close(descriptor)
        self._popen = self._start(command, log, death_signal)
        self.pid = self._popen.pid
        self.started_at = time.monotonic()
        self.ended = asyncio.Event()
        self._swept = False
        self._pidfd = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def _start(self, command: Command, log: Path, death_signal: signal.Signals) -> Started:
        with log.open("ab") as output:
            return subprocess.Popen(
                guarded(command.argv, death_signal, command.user),
                env=base_environment(self._directory) | dict(command.environment),
                cwd=command.cwd or self._directory.path,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._popen.wait()
        self.ended.set()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._popen.returncode

    def send(self, number: int) -> None:
        """Send a signal to the process alone; nothing happens if it has ended."""
        if not self.ended.is_set():
            self._popen.send_signal(number)

    async def stop(self, number: signal.Signals, grace: timedelta) -> None:
        """Ask it to stop, kill it after `grace`, and kill what is left of its group in any case."""
        self.send(number)
        try:
            async with asyncio.timeout(grace.total_seconds()):
                await self.ended.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.ended.wait()
        if not self._swept:  # once: later the number may be another group's
            self._swept = True
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
