"""``/readyz``: PostgreSQL is needed; without Redis, Kafka or the artifact store the service is degraded."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from constitution.api import ReadyReport
from constitution.errors import UnavailableError
from services.constitution_service import trust
from services.constitution_service.context import Context
from services.constitution_service.generations.guard import COMMAND

TIMEOUT = timedelta(seconds=2)  # of each dependency; all are asked at once
LATE = timedelta(seconds=5)  # an event that waits longer means that Kafka or the relay is not well


async def report(context: Context) -> ReadyReport:
    """Ask every dependency at once."""
    names = ("postgres", "redis", "artifact-store", "relay", "generations", "trust")
    asked: tuple[Callable[[Context], Awaitable[str]], ...] = (
        _postgres,
        _redis,
        _store,
        _relay,
        _generations,
        trust.state,
    )
    answers = await asyncio.gather(*(_answer(context, ask) for ask in asked))
    checks = dict(zip(names, answers, strict=True))
    if checks["postgres"] != "ok":
        return ReadyReport(status="unavailable", checks=checks)
    return ReadyReport(status="ok" if set(answers) == {"ok"} else "degraded", checks=checks)


async def _answer(context: Context, ask: Callable[[Context], Awaitable[str]]) -> str:
    try:
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            return await ask(context)
    except UnavailableError as error:  # and a server that cannot be used
        return error.message
    except TimeoutError:
        return f"no answer within {TIMEOUT.total_seconds():.0f} s"


async def _postgres(context: Context) -> str:
    async with context.database.connection() as connection:
        await connection.fetchval("SELECT 1 FROM releases LIMIT 1")
    return "ok"


async def _redis(context: Context) -> str:
    await context.cache.ping()
    return "ok"


async def _store(context: Context) -> str:
    await context.store.check()
    return "ok"


async def _relay(context: Context) -> str:
    async with context.database.connection() as connection:
        row = await connection.fetchrow(
            """
            SELECT
                (SELECT expires_at > now() FROM relay_leases WHERE environment = $1) AS led,
                (SELECT min(created_at) < now() - $2::interval FROM outbox
                 WHERE environment = $1 AND delivered_at IS NULL) AS late
            """,
            context.environment,
            LATE,
        )
    if row is None or not row["led"]:
        return "no process relays at the moment"
    return "events wait for Kafka" if row["late"] else "ok"


async def _generations(context: Context) -> str:
    lost = context.generation_guard.behind
    return "ok" if lost is None else f"PostgreSQL was restored from an older backup: {lost.message}; next: {COMMAND}"
