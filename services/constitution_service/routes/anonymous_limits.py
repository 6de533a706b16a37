"""Limits anonymous callers where an answer costs processor time.

Reads are open to everybody, and so is the question whether a document could go live; but a document of one megabyte
keeps a processor busy for seconds. A few anonymous callers are answered at a time, a few wait, the others get 503; so
releases and callers with a token never wait for them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from constitution.errors import UnavailableError

AT_ONCE = 2  # of the threads that verify and compile: loads need the others
WAITING = 4  # each keeps its request in memory, of 4 MiB at most


class AnonymousCallers:
    """Counts the anonymous callers of one process."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the block ends.

        Raises:
            UnavailableError: too many wait already (503 with ``Retry-After``).
        """
        if self._turns.locked() and self._waiting >= WAITING:
            raise UnavailableError(
                "too many callers without a token are being answered",
                hint="try again, or send a token with the scope artifacts:write: its holders do not wait",
            )
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()
