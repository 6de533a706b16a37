"""Lists the processes that serve, and up to which generation: a row per process, renewed while it reaches PostgreSQL.

Written at once when the process's memory has come to another generation: the runbook's proof waits for that.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta

import structlog

from constitution.errors import UnavailableError
from services.constitution_service.context import Context
from services.constitution_service.serving.memory import now

EVERY = timedelta(seconds=2)  # four may be late before the process counts as gone (SERVED_WITHIN)
_FORGOTTEN_AFTER = timedelta(hours=1)  # rows of dead processes are deleted then
_log = structlog.get_logger(__name__)


async def beat(context: Context) -> None:
    """Work until cancelled; the row is removed on the way out."""
    try:
        while True:
            context.memory.changed.clear()  # before the memory is read: what changes after it is written next
            try:
                began = now()
                await _write(context, context.memory.generation)
                context.memory.listed(began)
            except UnavailableError as error:
                _log.debug("heartbeat_not_written", reason=error.message)
            except Exception:  # noqa: BLE001 - e.g. a database that is just being restored; the next beat tries again
                _log.exception("heartbeat_failed")
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY.total_seconds()):
                    await context.memory.changed.wait()
    finally:
        await asyncio.shield(_leave(context))


async def _write(context: Context, generation: int) -> None:
    async with context.database.connection() as connection:
        await connection.execute(
            """
            INSERT INTO service_processes (environment, process, generation, seen_at) VALUES ($1, $2, $3, now())
            ON CONFLICT (environment, process) DO UPDATE SET generation = EXCLUDED.generation, seen_at = now()
            """,
            context.environment,
            context.process,
            generation,
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
    except Exception:  # noqa: BLE001 - the row goes stale by itself
        _log.debug("heartbeat_not_removed")
