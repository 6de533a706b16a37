"""A session of PostgreSQL as our transactions rely on it, also behind a pooler; and how a pooler's kind is found.

A pooler that gives a server to each *transaction* (PgBouncer's ``pool_mode=transaction``) breaks what we rely on:
``LISTEN``, prepared statements, and settings that hold until the session ends. One that gives a server to each
*session* breaks nothing, but takes no settings at the start; so they are set by statements.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from constitution.errors import UnsupportedServerError

AnyConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Opener: TypeAlias = 'Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]'

LOCK_TIMEOUT = timedelta(seconds=8)  # below the pool's COMMAND_TIMEOUT, so that the server says which lock it was
_LOCK_TIMEOUT_MS = str(int(LOCK_TIMEOUT.total_seconds() * 1000))
_SETTINGS = (
    f"SET lock_timeout TO {_LOCK_TIMEOUT_MS};"
    "SET idle_in_transaction_session_timeout TO 30000;"  # a stopped process must not hold the lease row
)
_TRIES = 3  # to be given the server of another client of ours


async def prepare(connection: AnyConnection) -> None:
    """Put our settings in force on a new connection.

    Raises:
        UnsupportedServerError: they do not last: something in between drops them.
    """
    await connection.execute(_SETTINGS)
    found = await connection.fetchval("SELECT setting FROM pg_settings WHERE name = 'lock_timeout'")
    if found != _LOCK_TIMEOUT_MS:
        raise _transaction_pooler()


async def reset(connection: AnyConnection) -> None:
    """Undo what a borrower left, as asyncpg does, and put our settings in force again: its RESET ALL ends them."""
    await connection.execute(f"{connection.get_reset_query()}\n;{_SETTINGS}")


def between(connection: AnyConnection, seen_port: int | None) -> bool:
    """Return whether something stands between us and the server.

    Args:
        connection: an open connection.
        seen_port: our port as the server sees it (``inet_client_port()``).
    """
    transport: Any = connection._transport  # type: ignore[union-attr]  # noqa: SLF001 - asyncpg names its socket nowhere else
    own = transport.get_extra_info("sockname")
    return not isinstance(own, tuple) or own[1] != seen_port


async def require_own_server(connection: AnyConnection, open_another: Opener) -> None:
    """Prove that a server process is ours alone while we are connected.

    A pooler of transactions gives the server that we have just left to the next client, most recently used first: so
    while one connection is idle, another one meets the same process. Asked only where something stands in between.

    Raises:
        UnsupportedServerError: two connections of ours met in one server process.
    """
    if not between(connection, await connection.fetchval("SELECT inet_client_port()")):
        return
    for _ in range(_TRIES):
        mine = await connection.fetchval("SELECT pg_backend_pid()")
        other = await open_another()
        try:
            theirs = await other.fetchval("SELECT pg_backend_pid()")
            again = await connection.fetchval("SELECT pg_backend_pid()")
        finally:
            await other.close()
        if theirs == mine or again != mine:
            raise _transaction_pooler()


def _transaction_pooler() -> UnsupportedServerError:
    return UnsupportedServerError(
        "what answers at the database's address is a pooler that gives a server to each transaction (PgBouncer with"
        " pool_mode=transaction does so): that breaks LISTEN, prepared statements and time limits of a session",
        hint="set pool_mode=session there, or give the address of PostgreSQL itself",
    )
