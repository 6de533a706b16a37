"""The sinks against a real disk and real sockets; the receivers here are the other end of the wire."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.siem_forwarder.sinks.ndjson import NdjsonSink
from services.siem_forwarder.sinks.sink import SinkError
from services.siem_forwarder.sinks.syslog import SyslogSink, rfc5424
from tests.helpers import eventually

EVENTS = [
    {"class_uid": 6003, "severity_id": 1, "time": 1_795_000_000_123, "metadata": {"uid": f"e{n}"}, "message": "ä\n☃"}
    for n in range(3)
]


class TestNdjson:
    async def test_one_event_a_line_private_to_its_owner(self, tmp_path: Path) -> None:
        file = tmp_path / "new" / "events.ndjson"
        sink = NdjsonSink(file)
        await sink.deliver(EVENTS)
        await sink.deliver(EVENTS)
        assert [json.loads(line) for line in file.read_text().splitlines()] == EVENTS * 2
        assert file.stat().st_mode & 0o777 == 0o600

    async def test_a_torn_last_line_is_cut_off(self, tmp_path: Path) -> None:
        file = tmp_path / "events.ndjson"
        sink = NdjsonSink(file)
        await sink.deliver(EVENTS[:1])
        with file.open("ab") as handle:
            handle.write(b'{"class_uid":6003,"mess')
        await sink.deliver(EVENTS[1:])
        assert [json.loads(line) for line in file.read_text().splitlines()] == EVENTS

    async def test_a_torn_line_longer_than_the_window_is_cut_off(self, tmp_path: Path) -> None:
        file = tmp_path / "events.ndjson"
        file.write_bytes(b"{}\n" + b"x" * 200_000)
        await NdjsonSink(file).deliver(EVENTS[:1])
        assert file.read_text().splitlines()[0] == "{}"
        assert json.loads(file.read_text().splitlines()[1]) == EVENTS[0]

    async def test_goes_on_after_the_file_was_rotated(self, tmp_path: Path) -> None:
        file = tmp_path / "events.ndjson"
        sink = NdjsonSink(file)
        await sink.deliver(EVENTS[:1])
        file.rename(tmp_path / "events.1")
        await sink.deliver(EVENTS[1:])
        assert len(file.read_text().splitlines()) == 2

    async def test_a_folder_that_cannot_be_written_is_a_sink_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(SinkError, match="events"):
            await NdjsonSink(tmp_path / "file" / "events.ndjson").deliver(EVENTS)

    async def test_a_full_disk_is_a_sink_error(self) -> None:
        with pytest.raises(SinkError, match="No space left"):
            await NdjsonSink(Path("/dev/full")).deliver(EVENTS)


class TestRfc5424:
    def test_form_of_a_message(self) -> None:
        message = rfc5424(EVENTS[0], hostname="h", app_name="constitution").decode("ascii")
        head, _, text = message.partition(" - ")
        assert re.fullmatch(rf"<110>1 2026-11-18T[0-9:]{{8}}\.123Z h constitution {os.getpid()} ocsf-6003", head), head
        assert json.loads(text) == EVENTS[0]

    @pytest.mark.parametrize(("severity", "priority"), [(1, 110), (4, 107), (6, 105), (99, 109)])
    def test_severity(self, severity: int, priority: int) -> None:
        assert rfc5424({**EVENTS[0], "severity_id": severity}, hostname="h", app_name="a").startswith(
            b"<%d>1 " % priority
        )

    def test_a_time_outside_the_calendar_is_replaced(self) -> None:
        assert b" h a " in rfc5424({**EVENTS[0], "time": 10**30}, hostname="h", app_name="a")


@asynccontextmanager
async def receiver(received: list[bytes], *, port: int = 0) -> AsyncIterator[tuple[int, list[asyncio.StreamWriter]]]:
    """An octet-counting TCP receiver."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while True:
                length = int((await reader.readuntil(b" ")).decode())
                received.append(await reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1], writers
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


class TestSyslog:
    async def test_every_event_arrives_as_one_counted_message(self) -> None:
        received: list[bytes] = []
        async with receiver(received) as (port, _):
            sink = SyslogSink("127.0.0.1", port, app_name="constitution")
            await sink.deliver(EVENTS * 200)
            await eventually(lambda: len(received) == 600)
            await sink.close()
        assert [json.loads(message.partition(b" - ")[2]) for message in received] == EVENTS * 200

    async def test_nobody_listening_is_a_sink_error(self) -> None:
        async with receiver([]) as (port, _):
            pass
        with pytest.raises(SinkError, match=str(port)):
            await SyslogSink("127.0.0.1", port, app_name="a").deliver(EVENTS)

    async def test_connects_again_after_the_receiver_went_away(self) -> None:
        received: list[bytes] = []
        async with receiver(received) as (port, writers):
            sink = SyslogSink("127.0.0.1", port, app_name="a")
            await sink.deliver(EVENTS[:1])
            await eventually(lambda: len(received) == 1)
            for writer in writers:
                writer.close()
                await writer.wait_closed()
        with pytest.raises(SinkError):
            await sink.deliver(EVENTS[1:])
        async with receiver(received, port=port):
            await sink.deliver(EVENTS[1:])
            await eventually(lambda: len(received) == 3)
            await sink.close()

    async def test_a_receiver_that_reads_nothing_has_not_acknowledged(self) -> None:
        connections: list[asyncio.StreamWriter] = []
        stalled = await asyncio.start_server(lambda _reader, writer: connections.append(writer), "127.0.0.1", 0)
        port = stalled.sockets[0].getsockname()[1]
        big = [{**EVENTS[0], "message": "x" * 1_000_000}] * 20
        with pytest.raises(SinkError, match="no acknowledgement"):
            await SyslogSink("127.0.0.1", port, app_name="a", acknowledge_s=0.3).deliver(big)
        for writer in connections:
            writer.transport.abort()
        stalled.close()
        await stalled.wait_closed()
