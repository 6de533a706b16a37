"""A small answer is one packet; no answer waits for a body that is not there yet, and none is changed."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from services.common.deadlines import DeadlinedProtocol
from tests.helpers import eventually
from tests.ports import free_port

DATA_SEGMENTS_IN = 152  # offset of tcpi_data_segs_in in struct tcp_info, linux/tcp.h
LARGE = b"x" * 300_000


class App:
    """Answers by path."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        body = LARGE if scope["path"] == "/large" else scope["path"].encode()
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
            if scope["path"] != "/streamed"
            else {"type": "http.response.start", "status": 200, "headers": []}
        )
        if scope["path"] == "/streamed":
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            await self.go_on.wait()
            body = b"second"
        elif scope["path"] == "/waits":
            await self.go_on.wait()
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def served() -> AsyncIterator[tuple[App, int]]:
    app, port = App(), free_port()
    config = uvicorn.Config(app, port=port, http=DeadlinedProtocol, lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    await eventually(lambda: server.started)
    yield app, port
    server.should_exit = True
    await serving


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


def ask(writer: asyncio.StreamWriter, path: str, *, method: str = "GET", end: bool = False) -> None:
    close = "Connection: close\r\n" if end else ""
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: any\r\n{close}\r\n".encode())


async def read(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    return await reader.readexactly(int(length.partition(b":")[2]))


def segments(writer: asyncio.StreamWriter) -> int:
    info = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    count: int = struct.unpack_from("I", info, DATA_SEGMENTS_IN)[0]
    return count


async def test_a_small_answer_is_one_packet(served: tuple[App, int]) -> None:
    reader, writer = await connect(served[1])
    for number in range(1, 4):
        ask(writer, "/small")
        assert await read(reader) == b"/small"
        assert segments(writer) == number
    writer.close()


async def test_a_head_does_not_wait_for_a_body_that_is_not_ready(served: tuple[App, int]) -> None:
    app, port = served
    reader, writer = await connect(port)
    ask(writer, "/waits")
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 200 ")
    app.go_on.set()
    assert await reader.readexactly(6) == b"/waits"
    app.go_on.clear()
    ask(writer, "/streamed", end=True)
    assert (await asyncio.wait_for(reader.readuntil(b"first\r\n"), 10)).startswith(b"HTTP/1.1 200 ")
    app.go_on.set()
    assert await reader.read() == b"6\r\nsecond\r\n0\r\n\r\n"
    writer.close()


async def test_large_answers_pipelined_ones_and_those_that_end_a_connection_are_whole(served: tuple[App, int]) -> None:
    reader, writer = await connect(served[1])
    for path in ("/large", "/one", "/large", "/two"):
        ask(writer, path)
    assert [await read(reader) for _ in range(4)] == [LARGE, b"/one", LARGE, b"/two"]
    ask(writer, "/last", method="HEAD", end=True)
    rest = await reader.read()
    assert rest.startswith(b"HTTP/1.1 200 ")
    assert rest.endswith(b"\r\n\r\n")
    assert b"content-length: 5\r\n" in rest
    writer.close()
