"""Sends an answer's head and its body together: one call of the kernel and one packet, where uvicorn makes two of each.

A call of the kernel costs a fifth of a small answer. The head waits for the body until the event loop is free again,
which is at once where the answer is ready, and costs a streamed answer nothing.
"""

import asyncio
from typing import Any

TOGETHER = 64 * 1024  # bytes of a body that is joined with its head: to copy more costs more than a call


class OnePacket:
    """A transport that keeps the first piece of an answer back until the second comes; all else is the transport's own.

    Args:
        transport: of the connection.
        loop: of the connection.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._write = transport.write
        self._soon = loop.call_soon
        self._kept = b""
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        """Write, or keep the head of an answer for a moment."""
        if self._kept:
            kept, self._kept = self._kept, b""
            if len(data) <= TOGETHER:
                self._write(kept + data)
                return
            self._write(kept)
        elif data.startswith(b"HTTP/1.1 ") and len(data) <= TOGETHER:
            self._kept = data
            self._soon(self._flush)
            return
        if data:
            self._write(data)

    def close(self) -> None:
        """Close the connection once everything has been written."""
        self._flush()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the caller has not taken yet."""
        return len(self._kept) + self._transport.get_write_buffer_size()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._kept:
            kept, self._kept = self._kept, b""
            self._write(kept)
