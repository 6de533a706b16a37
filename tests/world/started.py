"""Starts a server for one test, waits until it answers, and stops it; a failed start tells the end of its log."""

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from deploy.embedded.server import Command, guarded
from tests.machine import patience

START = timedelta(seconds=60)


@asynccontextmanager
async def started(
    command: Command,
    *,
    environment: Mapping[str, str],
    log: Path,
    ready: Callable[[], Awaitable[None]],
    stop: signal.Signals = signal.SIGTERM,
    files: Sequence[int] = (),
) -> AsyncIterator[None]:
    """Run a program until the block ends.

    Args:
        command: what to run.
        environment: all that it gets beside the command's own.
        log: takes what it prints.
        ready: raises anything while it does not answer.
        stop: the signal that ends it.
        files: descriptors that it inherits.
    """
    process = _spawn(command, environment, log, files)
    try:
        end = time.monotonic() + patience(START).total_seconds()
        while not await _answers(ready, process, log, last=time.monotonic() > end):  # noqa: ASYNC110 - of a process
            await asyncio.sleep(0.2)
        yield
    finally:
        process.send_signal(stop)
        try:
            await asyncio.to_thread(process.wait, 15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _answers(
    ready: Callable[[], Awaitable[None]], process: "subprocess.Popen[bytes]", log: Path, *, last: bool
) -> bool:
    try:
        await ready()
    except Exception as error:
        if last or process.poll() is not None:
            said = await asyncio.to_thread(log.read_text, encoding="utf-8", errors="replace")
            raise AssertionError(f"{process.args!r} does not answer: {error!r}\n{said[-3000:]}") from error
        return False
    return True


def _spawn(
    command: Command, environment: Mapping[str, str], log: Path, files: Sequence[int]
) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(  # noqa: S603
            guarded(command.argv, signal.SIGKILL, command.user),
            env={**environment, **command.environment},
            cwd=command.cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=files,
        )
