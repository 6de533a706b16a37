"""Reads Postgres itself, with a role that may only read, and locks by name (advisory locks need no right)."""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import asyncpg

from adapters.postgres import Database
from constitution.errors import NotYetError

LOCK_WAIT = timedelta(seconds=6)  # longer than posting one message takes; then the activity's own retries decide

_T = TypeVar("_T")


class PostgresLedger:
    """Implements ``activities.ports.Ledger``.

    Args:
        database: opened with ``DATABASE_READER_URL``.
        environment: whose releases are read.
    """

    def __init__(self, database: Database, environment: str) -> None:
        self._database = database
        self._environment = environment

    async def current_row(self, ring: str) -> tuple[int, str | None] | None:
        """Return (generation, checksum) of the ring's current release, or None before the first.

        Raises:
            UnavailableError: Postgres did not answer.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT r.generation, r.checksum FROM current_releases c"
                " JOIN releases r ON r.environment = c.environment AND r.generation = c.generation"
                " WHERE c.environment = $1 AND c.ring = $2",
                self._environment,
                ring,
            )
        return None if row is None else (int(row["generation"]), row["checksum"])

    async def locked(self, name: str, work: Callable[[], Awaitable[_T]]) -> _T:
        """Run ``work`` while holding the advisory lock ``name``, and return what it returns.

        The lock ends with its connection: a process that dies frees it. If the connection breaks while ``work`` runs,
        the lock is gone before the work is; so ``work`` must look before it acts, and the lock only keeps two that
        look at the same moment apart.

        Raises:
            NotYetError: another holder kept it for longer than ``LOCK_WAIT``.
            UnavailableError: Postgres did not answer. Errors of ``work`` pass through.
        """
        digest = hashlib.blake2b(f"{self._environment}/{name}".encode(), digest_size=8).digest()
        number = int.from_bytes(digest, "big", signed=True)
        wait = LOCK_WAIT.total_seconds()
        async with self._database.connection() as connection:
            await connection.execute(f"SET lock_timeout = '{wait:.0f}s'")
            try:
                await connection.execute("SELECT pg_advisory_lock($1)", number, timeout=wait + 5)
            except asyncpg.LockNotAvailableError as error:
                raise NotYetError(f"another execution has held the lock {name!r} for {wait:g} s") from error
            # The pool unlocks and resets the connection on its way back; a cancelled caller gives it back too.
            return await work()
