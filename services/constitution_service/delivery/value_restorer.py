"""Writes a ring's Redis value again when it is not the one that was verified: at a read that bypasses memory.

The relay does the same within a second (cache_writer.py). Here nothing of the value is parsed: it is right if its bytes
are those of the answer.
"""

import structlog

from constitution.errors import UnavailableError
from constitution.release import CurrentConstitution
from services.constitution_service.context import Context
from services.constitution_service.serving.answer import Answer

_log = structlog.get_logger(__name__)


async def restore(context: Context, ring: str, answer: Answer) -> None:
    """Write the value of a ring, unless it is right or newer; a silent Redis changes nothing.

    Args:
        context: of the service.
        ring: whose value it is.
        answer: verified, and confirmed by PostgreSQL.
    """
    try:
        if await context.cache.read(ring) == answer.body:
            return
        current = CurrentConstitution.model_validate_json(answer.body)
        if not await context.cache.write(ring, current):
            return
    except UnavailableError as error:
        _log.warning("cache_not_rewritten", ring=ring, reason=error.message)
        return
    context.metrics.cache_writes.labels("read").inc()
    _log.info("cache_refreshed", ring=ring, generation=current.generation, checksum=current.checksum, cause="read")
