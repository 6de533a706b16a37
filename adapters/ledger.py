"""Reads Postgres itself, with a role that may only read, and locks by name (advisory locks need no right)."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

import asyncpg

from constitution.errors import ConstitutionError, ForbiddenError, InvalidRequestError, NotYetError, UnavailableError

CONNECT = timedelta(seconds=5)
STATEMENT = timedelta(seconds=10)  # each statement reads one row by key
LOCK_WAIT = timedelta(seconds=20)  # longer than posting one message; then the activity's own retries decide

# SQLSTATE classes that a later call may not meet. Source: PostgreSQL documentation, appendix A.
_TRANSIENT_CLASSES = frozenset({"08", "40", "53", "55", "57", "58"})
_FORBIDDEN_CLASSES = frozenset({"28"})

_T = TypeVar("_T")


class PostgresLedger:
    """Implements ``activities.ports.Ledger``; open it with ``async with``.

    Args:
        url: ``DATABASE_READER_URL``; holds a password, never logged.
        environment: whose releases are read.
    """

    def __init__(self, url: str, environment: str) -> None:
        self._url = url
        self._environment = environment
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def __aenter__(self) -> Self:
        """Make the pool; connections are opened when they are needed, so that a worker starts without Postgres."""
        self._pool = asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=8,
            timeout=CONNECT.total_seconds(),
            command_timeout=STATEMENT.total_seconds(),
            server_settings={"application_name": "constitution-worker"},
        )
        await self._pool
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.terminate()  # nothing is ever written: no transaction to end well

    async def current_row(self, ring: str) -> tuple[int, str | None] | None:
        """Return (generation, checksum) of the ring's current release, or None before the first.

        Raises:
            UnavailableError: Postgres did not answer. ForbiddenError: it refuses this role.
        """
        async with self._connection() as connection:
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
            UnavailableError, ForbiddenError: as for ``current_row``; and whatever ``work`` raises.
        """
        digest = hashlib.blake2b(f"{self._environment}/{name}".encode(), digest_size=8).digest()
        number = int.from_bytes(digest, "big", signed=True)
        wait = LOCK_WAIT.total_seconds()
        async with self._connection() as connection:
            await connection.execute(f"SET lock_timeout = '{wait:.0f}s'")
            try:
                await connection.execute("SELECT pg_advisory_lock($1)", number, timeout=wait + 5)
            except asyncpg.LockNotAvailableError as error:
                raise NotYetError(f"another execution has held the lock {name!r} for {wait:g} s") from error
            return await work()  # the pool unlocks and resets the connection on its way back

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        if self._pool is None:
            raise UnavailableError("the ledger is not open")
        try:
            async with self._pool.acquire(timeout=CONNECT.total_seconds()) as connection:
                yield connection
        except ConstitutionError:
            raise
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise _translated(error) from error


def _translated(error: Exception) -> ConstitutionError:
    state = getattr(error, "sqlstate", None) or ""
    said = f"{type(error).__name__}: {error}"
    if state[:2] in _FORBIDDEN_CLASSES or state == "42501":
        return ForbiddenError(f"Postgres refuses the worker's role: {said}", hint="check DATABASE_READER_URL")
    if state and state[:2] not in _TRANSIENT_CLASSES:
        return InvalidRequestError(f"Postgres cannot do this: {said}", hint="are all migrations applied?")
    return UnavailableError(f"Postgres did not answer: {said}", hint="DATABASE_READER_URL says where it is looked for")
