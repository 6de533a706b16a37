"""Keeps the Redis value of each ring equal to PostgreSQL, and repairs the values of untrusted writers (invariant 8).

Used by the relay alone. A missing or old value is written again; one that does not verify is overwritten and audited;
a floor above every generation that exists was forged, and is lowered by compare-and-set, so that nobody who can write
to Redis can keep the next release out of it.
"""

import structlog

from constitution.checksum import checksum_of
from constitution.errors import UntrustedError
from constitution.release import CurrentConstitution
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context
from services.constitution_service.tables import releases
from services.constitution_service.tables.releases import Pointer

_log = structlog.get_logger(__name__)


class CacheWriter:
    """See the module.

    Args:
        context: of the service.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._proved: dict[str, tuple[int, str]] = {}  # ring -> generation and digest of the value that verified
        self._audited: set[str] = set()  # digests of forged values that were audited

    async def publish(self, generation: int, rings: tuple[str, ...]) -> None:
        """Write a release into its rings, unless a newer one is there, and record that it was.

        Raises:
            UnavailableError: Redis or PostgreSQL did not answer.
        """
        async with self._context.database.connection() as connection:
            current = await releases.read_current(connection, self._context.environment, generation)
        written = [await self._write(ring, current, cause="release") for ring in rings]
        if all(written):
            await self._record(current)

    async def round(self) -> None:
        """Look at every ring once, and repair each wrong value.

        Raises:
            UnavailableError: Redis or PostgreSQL did not answer.
        """
        async with self._context.database.connection() as connection:
            pointers = await releases.read_pointers(connection, self._context.environment)
        for ring, pointer in pointers.items():
            await self._look(ring, pointer)

    async def _look(self, ring: str, pointer: Pointer) -> None:
        raw = await self._context.cache.read(ring)
        digest = None if raw is None else checksum_of(raw)
        if digest is not None and self._proved.get(ring) == (pointer.generation, digest):
            return
        cause = "missing" if raw is None else await self._judge(ring, pointer, raw)
        async with self._context.database.connection() as connection:
            current = await releases.read_current(connection, self._context.environment, pointer.generation)
        if cause is None and digest is not None:
            self._proved[ring] = (pointer.generation, digest)
        elif cause == "ahead" or not await self._write(ring, current, cause=cause or "release"):
            return
        await self._record(current)

    async def _judge(self, ring: str, pointer: Pointer, raw: bytes) -> str | None:
        """Return why the value must be written again, ``ahead`` if PostgreSQL is behind it, None if it is right."""
        try:
            found = await self._context.sources.prove_value(raw, ring)
        except UntrustedError as error:
            await self._audit(ring, raw, error.message)
            return "forged"
        if found.generation < pointer.generation:
            return "stale"
        if found.generation == pointer.generation:
            return None
        if await self._newest(ring) < found.generation:
            _log.error("postgres_behind_redis", ring=ring, redis=found.generation, postgres=pointer.generation)
        return "ahead"

    async def _write(self, ring: str, current: CurrentConstitution, *, cause: str) -> bool:
        cache = self._context.cache
        written = await cache.write(ring, current)
        if not written:
            floor = await cache.floor(ring)
            if floor is None or await self._newest(ring) != current.generation:
                return False
            _log.error("cache_floor_forged", ring=ring, floor=floor[:32].decode(errors="replace"))
            written = await cache.reset(ring, current, floor)
        if written:
            self._proved[ring] = (current.generation, checksum_of(current.model_dump_json().encode()))
            self._context.metrics.cache_writes.labels(cause).inc()
            _log.info(
                "cache_refreshed", ring=ring, generation=current.generation, checksum=current.checksum, cause=cause
            )
        return written

    async def _newest(self, ring: str) -> int:
        async with self._context.database.connection() as connection:
            pointer = await releases.read_pointer(connection, self._context.environment, ring)
        return 0 if pointer is None else pointer.generation

    async def _record(self, current: CurrentConstitution) -> None:
        async with self._context.database.connection() as connection:
            await connection.execute(
                """
                INSERT INTO cache_deliveries (environment, generation, checksum) VALUES ($1, $2, $3)
                ON CONFLICT (environment, generation) DO NOTHING
                """,
                current.environment,
                current.generation,
                current.checksum,
            )

    async def _audit(self, ring: str, raw: bytes, reason: str) -> None:
        digest = checksum_of(raw)
        _log.error("cache_forged", ring=ring, value=digest, reason=reason)
        if digest in self._audited:
            return
        async with self._context.database.transaction() as connection:
            await audit_events.decision(
                connection,
                self._context,
                activity="cache.forged",
                success=False,
                actor="unknown",
                message=f"the value in Redis for ring {ring} does not verify and was overwritten: {reason}",
                details={"ring": ring, "value": digest},
            )
        self._audited.add(digest)
        if len(self._audited) > 1000:
            self._audited.clear()
