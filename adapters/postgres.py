"""PostgreSQL through asyncpg: one pool per process, timeouts everywhere, and one place that says what is transient."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from adapters.postgres_password import PasswordFile
from adapters.postgres_session import AnyConnection, prepare, require_own_server, reset
from adapters.postgres_tls import tls
from constitution.errors import InvalidRequestError, UnavailableError

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

CONNECT_TIMEOUT = timedelta(seconds=3)
ACQUIRE_TIMEOUT = timedelta(seconds=5)  # longer than a connect, so that a restarted server is reached
COMMAND_TIMEOUT = timedelta(seconds=10)
MIGRATE = "DATABASE_MIGRATION_URL=postgresql://OWNER@HOST/NAME python -m services.constitution_service.migrate"

_TRANSIENT = (
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,  # shut down, starting up, statement timeout
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.TransactionRollbackError,  # deadlock, serialisation
    asyncpg.ObjectNotInPrerequisiteStateError,  # a lock not to be had in time, a database that takes no connections
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby that is not promoted yet
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,  # database not created yet
    OSError,
    TimeoutError,
)


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Translate transient driver errors into UnavailableError; our own defects stay as they are."""
    try:
        yield
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:  # migrations not applied yet
        raise UnavailableError(
            f"the database has no schema of ours, or an older one ({_reason(error)}): run {MIGRATE}", hint=MIGRATE
        ) from error
    except _TRANSIENT as error:
        raise UnavailableError(f"PostgreSQL is not available: {_reason(error)}") from error
    except asyncpg.InterfaceError as error:
        if isinstance(error, ValueError):  # an argument that does not fit its column: a defect, not an outage
            raise
        raise UnavailableError(f"PostgreSQL is not available: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    text = str(error).split("\n", 1)[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Database:
    """A pool that connects when first used, so that a process can start before its database.

    Args:
        url: ``postgresql://user:password@host:port/name``; ``?sslmode=verify-full`` trusts the machine's authorities.
        application_name: shown in ``pg_stat_activity``.
        connections: most connections of this process.
        password_file: holds the password, read anew for each connection (``adapters.postgres_password``).
    """

    def __init__(
        self, url: str, *, application_name: str, connections: int = 10, password_file: Path | None = None
    ) -> None:
        self._url = url
        self._application_name = application_name
        self._connections = connections
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._security: dict[str, Any] = {} if password_file is None else {"password": PasswordFile(password_file)}
        self._is_own_server = False  # proved once a process: a pooler in between is no transaction pooler

    async def open(self) -> None:
        """Make the pool; connects to nothing yet.

        Raises:
            InvalidRequestError: the URL cannot be read.
        """
        context = tls(self._url)
        if context is not None:
            self._security["ssl"] = context
        try:
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=self._connections,
                timeout=CONNECT_TIMEOUT.total_seconds(),
                command_timeout=COMMAND_TIMEOUT.total_seconds(),
                max_inactive_connection_lifetime=60,
                init=self._prepare,
                reset=reset,
                server_settings={"application_name": self._application_name},
                **self._security,
            )
        except (ValueError, asyncpg.InterfaceError) as error:
            raise InvalidRequestError(f"DATABASE_URL cannot be read: {type(error).__name__}") from None

    async def _prepare(self, connection: AnyConnection) -> None:
        await prepare(connection)
        if not self._is_own_server:
            await require_own_server(connection, lambda: self._connect("probe"))
            self._is_own_server = True

    async def _connect(self, purpose: str) -> "asyncpg.Connection[asyncpg.Record]":
        """Open a connection outside the pool."""
        return await asyncpg.connect(
            self._url,
            timeout=CONNECT_TIMEOUT.total_seconds(),
            command_timeout=COMMAND_TIMEOUT.total_seconds(),
            server_settings={"application_name": f"{self._application_name} {purpose}"},
            **self._security,
        )

    async def close(self) -> None:
        """Close the connections; those that do not close in time are cut."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT.total_seconds()):
                await self._pool.close()
        except TimeoutError:
            self.cut()

    def cut(self) -> None:
        """Break every connection at once; whoever waits on one is told that it was lost."""
        if self._pool is not None:
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection.

        Raises:
            UnavailableError: none was to be had in time, or it broke.
            UnsupportedServerError: a pooler answers that cannot be used.
        """
        if self._pool is None:
            raise UnavailableError("PostgreSQL is not available: the pool is not open")
        async with translated(), self._pool.acquire(timeout=ACQUIRE_TIMEOUT.total_seconds()) as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside one READ COMMITTED transaction: commits at the end, or changes nothing.

        Raises:
            UnavailableError: as ``connection``; when the commit's answer was lost it may have happened.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def listening(self, channel: str) -> AsyncIterator["Listener"]:
        """Listen on a connection of its own.

        Raises:
            UnavailableError: it could not be opened.
        """
        async with translated():
            connection = await self._connect("listen")
            try:
                listener = Listener()
                connection.add_termination_listener(lambda _: listener.end())
                await connection.add_listener(channel, lambda *_: listener.notify())
                yield listener
            finally:
                connection.terminate()


class Listener:
    """Wakes the waiting task when ``NOTIFY`` arrives, and reports a lost connection."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self._ended = False

    def notify(self) -> None:
        """A notification arrived."""
        self._woken.set()

    def end(self) -> None:
        """The connection is gone."""
        self._ended = True
        self._woken.set()

    async def wait(self) -> None:
        """Return after the next notification, at once if one arrived since the last call.

        Raises:
            UnavailableError: the connection has died; open a new one.
        """
        await self._woken.wait()
        if self._ended:
            raise UnavailableError("PostgreSQL is not available: the listening connection was lost")
        self._woken.clear()
