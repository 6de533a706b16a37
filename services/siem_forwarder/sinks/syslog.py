"""RFC 5424 messages over TCP with octet counting (RFC 6587 §3.4.1).

Syslog over TCP has no acknowledgement of its own. The strongest statement the protocol allows is made here: a batch
counts as delivered when the receiver's kernel has acknowledged every byte (Linux SIOCOUTQ: nothing left unacknowledged)
and the connection is still open. What a receiver loses after that, it loses; where that is not enough, use ``http``.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
import termios
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from services.siem_forwarder.sinks.sink import Event, SinkError

CONNECT_SECONDS = 5.0
ACKNOWLEDGE_SECONDS = 10.0  # longer than a few TCP retransmissions
POLL_SECONDS = 0.005
FACILITY = 13  # log audit (RFC 5424, table 1)
SEVERITY = {1: 6, 2: 5, 3: 4, 4: 3, 5: 2, 6: 1}  # OCSF severity_id -> syslog severity
UNKNOWN_SEVERITY = 5


class SyslogSink:
    """A syslog receiver on ``host:port``.

    Args:
        host: name or address.
        port: TCP port.
        app_name: RFC 5424 APP-NAME.
        acknowledge_s: seconds that the receiver has to acknowledge a batch.
    """

    def __init__(self, host: str, port: int, *, app_name: str, acknowledge_s: float = ACKNOWLEDGE_SECONDS) -> None:
        self._acknowledge_s = acknowledge_s
        self._host = host
        self._port = port
        self._app_name = app_name
        self._hostname = socket.gethostname()[:255] or "-"
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def deliver(self, events: Sequence[Event]) -> Sequence[Event]:
        """Send all events and wait until the receiver's kernel has acknowledged every byte.

        Raises:
            SinkError: no connection, a closed one, or no acknowledgement in time.
        """
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                writer = await self._connected()
            async with asyncio.timeout(self._acknowledge_s):
                for event in events:
                    message = rfc5424(event, hostname=self._hostname, app_name=self._app_name)
                    writer.write(b"%d %s" % (len(message), message))
                await writer.drain()
                await self._acknowledged(writer)
        except (OSError, TimeoutError) as error:
            await self.close()
            reason = "no acknowledgement in time" if isinstance(error, TimeoutError) else str(error)
            raise SinkError(f"syslog {self._host}:{self._port}: {reason}") from error
        return ()

    async def close(self) -> None:
        """Close the connection."""
        writer, self._writer, self._reader = self._writer, None, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await writer.wait_closed()

    async def _connected(self) -> asyncio.StreamWriter:
        if self._reader is not None and (self._reader.at_eof() or self._reader.exception() is not None):
            await self.close()
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
            self._writer.transport.set_write_buffer_limits(high=0)  # drain() then waits for an empty buffer
        return self._writer

    async def _acknowledged(self, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        while True:
            if self._reader is None or self._reader.at_eof() or writer.is_closing():
                raise ConnectionResetError("the receiver closed the connection")
            answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4)
            if struct.unpack("i", answer)[0] == 0 and writer.transport.get_write_buffer_size() == 0:
                return
            await asyncio.sleep(POLL_SECONDS)  # the kernel offers no event for an emptied send queue


def rfc5424(event: Event, *, hostname: str, app_name: str) -> bytes:
    """Return one message; MSG is the event as ASCII JSON, so that no receiver needs to guess its encoding."""
    priority = FACILITY * 8 + SEVERITY.get(event.get("severity_id", 0), UNKNOWN_SEVERITY)
    text = json.dumps(event, separators=(",", ":"))
    head = f"<{priority}>1 {_timestamp(event)} {hostname} {app_name} {os.getpid()} ocsf-{event.get('class_uid', 0)} -"
    return f"{head} {text}".encode("ascii", "backslashreplace")


def _timestamp(event: Event) -> str:
    try:
        moment = datetime.fromtimestamp(int(event["time"]) / 1000, tz=UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(time.time(), tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
