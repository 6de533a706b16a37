"""Wakes the memory when PostgreSQL tells of a commit. A lost notice delays by the memory's poll, never prevents."""

import asyncio
from datetime import timedelta

import structlog

from adapters.postgres import Database
from constitution.errors import UnavailableError
from services.constitution_service.serving.memory import Memory
from services.constitution_service.tables import outbox

PAUSE = timedelta(seconds=1)
_log = structlog.get_logger(__name__)


async def listen(database: Database, memory: Memory) -> None:
    """Listen until cancelled, on a connection of its own."""
    while True:
        try:
            async with database.listening(outbox.CHANNEL) as listener:
                while True:
                    memory.notice()  # first for what was committed before this connection listened
                    await listener.wait()
        except UnavailableError as error:
            _log.warning("current_not_listened_for", reason=error.message)
            await asyncio.sleep(PAUSE.total_seconds())
