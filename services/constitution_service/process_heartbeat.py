"""Lists the processes that serve, and up to which generation: a row per process, renewed while it reads PostgreSQL."""

import asyncio
from datetime import timedelta

import structlog

from constitution.errors import UnavailableError
from services.constitution_service.context import Context

EVERY = timedelta(seconds=2)  # four may be late before the process counts as gone (SERVED_WITHIN)
_FORGOTTEN_AFTER = timedelta(hours=1)  # rows of dead processes are deleted then
_log = structlog.get_logger(__name__)


async def beat(context: Context) -> None:
    """Work until cancelled; the row is removed on the way out."""
    try:
        while True:
            try:
                await _write(context)
            except UnavailableError as error:
                _log.debug("heartbeat_not_written", reason=error.message)
            await asyncio.sleep(EVERY.total_seconds())
    finally:
        await asyncio.shield(_leave(context))


async def _write(context: Context) -> None:
    async with context.database.connection() as connection:
        generation: int = await connection.fetchval(
            """
            INSERT INTO service_processes (environment, process, generation, seen_at)
            SELECT $1, $2, coalesce(max(generation), 0), now() FROM releases WHERE environment = $1
            ON CONFLICT (environment, process) DO UPDATE SET generation = EXCLUDED.generation, seen_at = now()
            RETURNING generation
            """,
            context.environment,
            context.process,
        )
        await connection.execute(
            "DELETE FROM service_processes WHERE environment = $1 AND seen_at < now() - $2::interval",
            context.environment,
            _FORGOTTEN_AFTER,
        )
    context.metrics.generation.set(generation)


async def _leave(context: Context) -> None:
    try:
        async with context.database.connection() as connection:
            await connection.execute(
                "DELETE FROM service_processes WHERE environment = $1 AND process = $2",
                context.environment,
                context.process,
            )
    except UnavailableError:
        _log.debug("heartbeat_not_removed")  # the row goes stale by itself
