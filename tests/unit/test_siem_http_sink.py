"""The HTTP sink against receivers that take little: every event arrives, in order, or is named."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.siem_forwarder.ocsf_schema import OcsfSchema
from services.siem_forwarder.quarantine import MAX_RAW_BYTES
from services.siem_forwarder.sinks.http import MOST_BYTES, HttpSink
from services.siem_forwarder.sinks.sink import SinkError

LIMIT = 64 * 1024


def events(*sizes: int) -> list[dict[str, Any]]:
    return [
        {
            "class_uid": 6003,
            "severity_id": 1,
            "time": 1_795_000_000_123,
            "metadata": {"uid": f"e{n}"},
            "message": "x" * s,
        }
        for n, s in enumerate(sizes)
    ]


class Receiver:
    """A SIEM's HTTP input that answers 413 to a body above its limit, and ``status`` to any other."""

    def __init__(self, limit: int, status: int = 200) -> None:
        self.limit, self.status = limit, status
        self.bodies: list[int] = []
        self.taken: list[dict[str, Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                self.bodies.append(length)
                status = 413 if length > self.limit else self.status
                if status == 200:
                    self.taken += [json.loads(line) for line in body.splitlines()]
                writer.write(f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def sink_of(receiver: Receiver) -> AsyncIterator[HttpSink]:
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, limit=2**24)
    sink = HttpSink(f"http://anna:pa55word@127.0.0.1:{server.sockets[0].getsockname()[1]}/in?token=t0ken", token=None)
    try:
        yield sink
    finally:
        await sink.close()
        server.close()
        await server.wait_closed()


async def test_a_batch_that_gets_413_is_halved_until_it_fits_and_the_size_is_remembered() -> None:
    receiver, given = Receiver(LIMIT), events(*[400] * 500)  # about 260 kB
    async with sink_of(receiver) as sink:
        assert list(await sink.deliver(given)) == []
        assert receiver.taken == given
        refused = [size for size in receiver.bodies if size > LIMIT]
        assert 0 < len(refused) <= 4
        await sink.deliver(given)
    assert receiver.taken == given * 2
    assert [size for size in receiver.bodies if size > LIMIT] == refused


async def test_no_body_is_larger_than_most_receivers_take() -> None:
    receiver, given = Receiver(2**40), events(*[100_000] * 40)
    async with sink_of(receiver) as sink:
        await sink.deliver(given)
    assert receiver.taken == given
    assert max(receiver.bodies) <= MOST_BYTES


@pytest.mark.parametrize("sizes", [(LIMIT,), (10, LIMIT, 10), (LIMIT, LIMIT), (10, 10, 10 * MAX_RAW_BYTES)])
async def test_one_event_that_is_too_large_is_named_and_holds_up_no_other(sizes: tuple[int, ...]) -> None:
    receiver, given = Receiver(LIMIT), events(*sizes)
    async with sink_of(receiver) as sink:
        replaced = await sink.deliver(given)
    large = [event for event in given if len(event["message"]) >= LIMIT]
    assert list(replaced) == large
    assert len(receiver.taken) == len(given)
    for event, taken in zip(given, receiver.taken, strict=True):
        if event in large:
            uid = event["metadata"]["uid"]
            assert taken["metadata"]["uid"] == f"too-large:{uid}"
            assert uid in taken["message"]
            assert OcsfSchema().problems(taken) == ()
        else:
            assert taken == event


@pytest.mark.parametrize(("limit", "status"), [(0, 200), (LIMIT, 500), (LIMIT, 302), (LIMIT, 401)])
async def test_any_other_refusal_is_an_error_that_says_the_host_only(limit: int, status: int) -> None:
    async with sink_of(Receiver(limit, status)) as sink:
        with pytest.raises(SinkError) as refused:
            await sink.deliver(events(10))
    said = refused.value.diagnostics()
    assert "127.0.0.1:" in said
    assert not any(secret in said for secret in ("anna", "pa55word", "t0ken"))
