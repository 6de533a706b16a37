"""HTTP/1.1 connections whose callers may be slow, but not for ever: deadlines for headers and for taking an answer.

uvicorn bounds a connection that is idle between two requests, and nothing else. The body's deadline is in
services.common.limits.
"""

import asyncio
from datetime import timedelta
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from services.common.one_packet import OnePacket

HEADER_TIMEOUT = timedelta(seconds=10)  # from the connection, or a later request's first byte, to the headers' end
TAKE_TIMEOUT = timedelta(seconds=20)  # to take any of an answer that has filled the connection's buffers
ANSWER_TIMEOUT = timedelta(seconds=60)  # to take the rest of a complete answer, which is at most about 128 KiB


class DeadlinedProtocol(H11Protocol):
    """One connection; see the module."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._headers_due: asyncio.TimerHandle | None = None
        self._answer_due: asyncio.TimerHandle | None = None
        self._take_due: asyncio.TimerHandle | None = None
        self._idle = False  # an answer is complete, and no byte of another request has come

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first request's headers."""
        super().connection_made(OnePacket(transport, self.loop))  # type: ignore[arg-type]
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Stop the clock when headers are complete; start it with the first bytes of another request's."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._cancel_headers()
        elif self._idle:
            self._expect_headers()
        self._idle = False

    def on_response_complete(self) -> None:
        """Give the caller a while to take the answer; a request that came meanwhile has its headers already."""
        before = self.cycle
        super().on_response_complete()
        self._idle = self.cycle is before
        if self._answer_due is not None:
            self._answer_due.cancel()
            self._answer_due = None
        if self.transport.get_write_buffer_size():  # else the kernel has all of it
            self._answer_due = self.loop.call_later(ANSWER_TIMEOUT.total_seconds(), self._abort_unless_taken)

    def pause_writing(self) -> None:
        """Start the clock for taking what waits."""
        super().pause_writing()
        self._take_due = self.loop.call_later(TAKE_TIMEOUT.total_seconds(), self.transport.abort)

    def resume_writing(self) -> None:
        """Stop that clock: some was taken."""
        if self._take_due is not None:
            self._take_due.cancel()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        self._cancel_headers()
        for due in (self._answer_due, self._take_due):
            if due is not None:
                due.cancel()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        self._headers_due = self.loop.call_later(HEADER_TIMEOUT.total_seconds(), self._end_unless_closing)

    def _cancel_headers(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _end_unless_closing(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _abort_unless_taken(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
