"""``GET /v1/constitution``: the current release of a ring.

PostgreSQL says which generation is current, for every call; Redis may then give the bytes, if they are of that
generation and verify like those of any untrusted writer. Any other value in Redis is ignored and repaired.
"""

import structlog

from constitution.errors import UnavailableError, UntrustedError
from constitution.release import CurrentConstitution
from services.constitution_service.context import Context
from services.constitution_service.errors import NoConstitutionError
from services.constitution_service.tables import releases
from services.constitution_service.tables.releases import Pointer

_log = structlog.get_logger(__name__)


def etag(pointer: Pointer) -> str:
    """Return the entity tag (RFC 9110 §8.8.3): it changes with every generation, also when the bytes are the same."""
    return f'"{pointer.generation}-{(pointer.checksum or "sha256:none").removeprefix("sha256:")[:16]}"'


async def pointer_of(context: Context, ring: str) -> Pointer:
    """Return the current release of a ring, from PostgreSQL.

    Raises:
        NoConstitutionError: before the ring's first release.
        BehindError: PostgreSQL has lost releases; consumers keep the one that they obey.
    """
    context.generation_guard.refuse_to_serve()
    async with context.database.connection() as connection:
        pointer = await releases.read_pointer(connection, context.environment, ring)
    if pointer is None:
        raise NoConstitutionError(f"the ring {ring} of {context.environment} has no constitution yet")
    return pointer


async def read(context: Context, ring: str, pointer: Pointer) -> CurrentConstitution:
    """Return the ring's current release, from Redis if its value verifies, from PostgreSQL otherwise."""
    redis_answers = True
    try:
        raw = await context.cache.read(ring)
    except UnavailableError:
        raw, redis_answers = None, False
    if raw is not None:
        try:
            cached = await context.sources.prove_value(raw, ring)
        except UntrustedError as error:
            _log.error("cache_refused", ring=ring, reason=error.message)
        else:
            if cached.generation == pointer.generation:
                context.metrics.cache_reads.labels("hit").inc()
                return cached
    context.metrics.cache_reads.labels("miss" if redis_answers else "down").inc()
    async with context.database.connection() as connection:
        current = await releases.read_current(connection, context.environment, pointer.generation)
    if redis_answers:
        await _rewrite(context, ring, current)
    return current


async def _rewrite(context: Context, ring: str, current: CurrentConstitution) -> None:
    try:
        written = await context.cache.write(ring, current)
    except UnavailableError as error:
        _log.warning("cache_not_rewritten", ring=ring, reason=error.message)
        return
    if written:
        context.metrics.cache_writes.labels("read").inc()
        _log.info("cache_refreshed", ring=ring, generation=current.generation, checksum=current.checksum, cause="read")
