"""Brings audit events from the spool to PostgreSQL as soon as it answers again, oldest first."""

import asyncio
from datetime import timedelta

import structlog
from pydantic import ValidationError

from constitution.errors import UnavailableError
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context

EVERY = timedelta(seconds=1)  # so long an event stays on disk once PostgreSQL answers again
_log = structlog.get_logger(__name__)


class Drain:
    """Runs inside the service's lifespan.

    Args:
        context: of the service.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                await self.round()
            except (UnavailableError, OSError) as error:
                _log.debug("spool_waits", reason=str(error))
            await asyncio.sleep(EVERY.total_seconds())

    async def round(self) -> None:
        """Move what waits; an event leaves the disk after it was committed.

        Raises:
            UnavailableError: PostgreSQL is still down; nothing is lost.
            OSError: the disk refused.
        """
        spool = self._context.spool
        for path in spool.waiting():
            text = spool.read(path)
            if text is None:
                continue
            try:
                spooled = audit_events.SpooledEvent.model_validate_json(text)
            except ValidationError:
                _log.error("spool_file_unreadable", file=path.name)  # kept aside for a person, not retried for ever
                self._context.metrics.unreadable.inc()
                path.rename(path.with_suffix(".unreadable"))
                continue
            async with self._context.database.transaction() as connection:
                await audit_events.enqueue(connection, self._context, spooled.event, spooled.time)
            spool.taken(path)
        self._context.metrics.spooled.set(len(spool))
