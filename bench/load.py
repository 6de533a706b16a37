"""Closed-loop load over kept connections: each sends its next request when the last one was answered.

Written on plain streams, for load only: an HTTP client for general use costs more processor time than the endpoint
that is measured, on the same two cores.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Round:
    """Answers of one round, all of them 200, and the seconds that each took."""

    connections: int
    seconds: float
    latencies: list[float]

    @property
    def per_second(self) -> float:
        """Return answers per second."""
        return len(self.latencies) / self.seconds


async def load(port: int, path: str, bodies: Sequence[bytes], *, connections: int, seconds: float) -> Round:
    """Post the bodies in turn for some seconds.

    Raises:
        ConnectionError: an answer is not 200.
    """
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: "
    requests = itertools.cycle([head.encode() + f"{len(body)}\r\n\r\n".encode() + body for body in bodies])
    latencies: list[float] = []
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(_connection(port, requests, latencies, until=began + seconds))
    return Round(connections, time.perf_counter() - began, latencies)


async def _connection(port: int, requests: "itertools.cycle[bytes]", latencies: list[float], *, until: float) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while (began := time.perf_counter()) < until:
            writer.write(next(requests))
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise ConnectionError(f"answered with {head[:100]!r}")
            await reader.readexactly(_length(head))
            latencies.append(time.perf_counter() - began)
    finally:
        writer.close()
        await writer.wait_closed()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ConnectionError("the answer names no length")
