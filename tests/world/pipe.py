"""A TCP connection that a test can cut or let fall silent: between a service and its PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Pipe:
    """Passes bytes on, both ways; ``silence`` keeps connections open and passes nothing, ``cut`` closes and refuses."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._flows = asyncio.Event()
        self._flows.set()
        self._refuses = False
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)

    async def close(self) -> None:
        self.cut()
        self._flows.set()
        # A connection that is being accepted while the server closes is never closed (CPython 3.11). They are accepted
        # in order: after this one, none is left.
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        with suppress(OSError):
            await reader.read()
        writer.transport.abort()
        self._server.close()

    def silence(self) -> None:
        self._flows.clear()

    def cut(self) -> None:
        self._refuses = True
        for writer in self._writers:
            writer.transport.abort()

    def repair(self) -> None:
        self._refuses = False
        self._flows.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._refuses:
                return
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
            self._writers.add(up_writer)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._pass(reader, up_writer))
                    tasks.create_task(self._pass(up_reader, writer))
            finally:
                self._writers.discard(up_writer)
                up_writer.transport.abort()
        except* OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def piped(url: str) -> AsyncIterator[tuple[Pipe, str]]:
    """Give a pipe in front of a server, and the server's address through it."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    pipe = Pipe(parts.hostname, parts.port)
    await pipe.open()
    try:
        yield pipe, url.replace(f":{parts.port}/", f":{pipe.port}/")
    finally:
        await pipe.close()
