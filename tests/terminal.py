"""A program on a real terminal (a pty) of a given size: what a person types, and what the terminal is sent."""

import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tests.machine import pace


class Terminal:
    """One program in a session of its own whose controlling terminal is a pty.

    Args:
        command: the program and its arguments.
        environment: its whole environment.
        columns: width.
        rows: height.
    """

    def __init__(
        self, command: list[str], environment: Mapping[str, str], *, columns: int = 80, rows: int = 24
    ) -> None:
        self._command = command
        self._environment = {**environment, "TERM": "xterm"}
        self._size = struct.pack("HHHH", rows, columns, 0, 0)
        self._read = asyncio.Event()
        self.sent = b""

    async def __aenter__(self) -> Self:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, self._size)
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=self._environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        asyncio.get_running_loop().add_reader(self._master, self._take)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        os.close(self._master)

    def _take(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the program has closed its side
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self.sent += data
        self._read.set()

    async def until(self, text: str, seconds: float = 60) -> None:
        """Wait until the terminal was sent ``text``."""
        async with asyncio.timeout(seconds * pace()):
            while text.encode() not in self.sent:
                self._read.clear()
                await self._read.wait()

    def type(self, keys: str) -> None:
        """Type keys; \\x03 is Ctrl-C, as the terminal's line discipline makes a signal of it."""
        os.write(self._master, keys.encode())

    async def answer(self, keys: str) -> int:
        """Type keys that end the program; return its exit code.

        Again every second, as a person does: between a prompt and its first read, readline loses a Ctrl-C or Ctrl-D.
        """
        ending = asyncio.ensure_future(self.end())
        while not ending.done():
            self.type(keys)
            await asyncio.wait({ending}, timeout=1)
        return await ending

    async def end(self, seconds: float = 60) -> int:
        """Wait for the end; return the exit code."""
        return await asyncio.wait_for(self._process.wait(), seconds * pace())
