"""The Redis value of each ring's current constitution, and the floor that keeps it from going back.

One Lua script for every writer: a generation below the floor is refused. The floor key is never deleted, so
``redis-cli DEL constitution:current`` by hand is safe at any moment. A value read here is an untrusted hint: the
caller verifies it (signatures.current.verify_current; invariant 8).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ClusterCrossSlotError, MovedError, NoPermissionError, RedisError, ResponseError

from constitution.errors import InvalidRequestError, UnavailableError, UnsupportedServerError
from constitution.names import Names
from constitution.release import CurrentConstitution

MAX_VALUE = 7 * 1024 * 1024  # bytes; a push of 4 MiB: a document of 1 MiB, escaped twofold, and signatures in base64
TIMEOUT = timedelta(milliseconds=900)  # connect and answer; an event waits at most 1 s for Redis (relay.py)

# A floor of another type, of more than 32 bytes, or that is no number, is an untrusted writer's: it counts as none.
# KEYS: value, floor.
# ARGV: generation, value, and a floor that may be lowered ('' if none: see `reset`). SET replaces any type.
_WRITE = """
local found = redis.pcall('GET', KEYS[2])
if type(found) ~= 'string' or #found > 32 then found = '' end
local floor = tonumber(found) or 0
if floor ~= floor then floor = 0 end
if tonumber(ARGV[1]) < floor and not (ARGV[3] ~= '' and found == ARGV[3]) then return 0 end
redis.call('SET', KEYS[2], ARGV[1])
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""

# A value that is too large or of another type reads as empty: it would fell its reader. KEYS: value. ARGV: most bytes.
_READ = """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local size = redis.pcall('STRLEN', KEYS[1])
if type(size) ~= 'number' or size > tonumber(ARGV[1]) then return '' end
return redis.call('GET', KEYS[1])
"""


def connect(url: str) -> "Redis":
    """Return a client with short timeouts and no retries of its own: callers decide what a silent Redis means.

    Raises:
        InvalidRequestError: the URL cannot be read.
    """
    try:
        return Redis.from_url(
            url,
            socket_timeout=TIMEOUT.total_seconds(),
            socket_connect_timeout=TIMEOUT.total_seconds(),
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
    except ValueError as error:
        raise InvalidRequestError("REDIS_URL cannot be read: redis://[:password@]host:port/db") from error


class ConstitutionCache:
    """Reads and writes the value of each ring.

    Args:
        redis: a client (see ``connect``).
        names: for the keys.
    """

    def __init__(self, redis: Redis, names: Names) -> None:
        self._redis = redis
        self._names = names
        self._write = redis.register_script(_WRITE)
        self._read = redis.register_script(_READ)

    async def write(self, ring: str, current: CurrentConstitution) -> bool:
        """Write a ring's value; False, and nothing changed, when a higher generation was written before.

        Raises:
            UnavailableError: Redis did not answer; it may have happened.
        """
        return await self._run(ring, current, "")

    async def reset(self, ring: str, current: CurrentConstitution, forged_floor: bytes) -> bool:
        """Write although the floor is higher, if the floor is still the one that was proved to be forged.

        Only the relay may do so, after it has read in PostgreSQL that no such generation exists.

        Raises:
            UnavailableError: Redis did not answer; it may have happened.
        """
        return await self._run(ring, current, forged_floor)

    async def _run(self, ring: str, current: CurrentConstitution, forged_floor: bytes | str) -> bool:
        keys = [self._names.redis_current(ring), self._names.redis_floor(ring)]
        async with _translated():
            return bool(
                await self._write(keys=keys, args=[current.generation, current.model_dump_json(), forged_floor])
            )

    async def read(self, ring: str) -> bytes | None:
        """Return the ring's value as it is, unverified; None if there is none.

        A key of another type, or of more than ``MAX_VALUE`` bytes, reads as empty.

        Raises:
            UnavailableError: Redis did not answer.
        """
        async with _translated():
            value = await self._read(keys=[self._names.redis_current(ring)], args=[MAX_VALUE])
        return value if value is None or isinstance(value, bytes) else str(value).encode()

    async def floor(self, ring: str) -> bytes | None:
        """Return the floor as it is, unverified; None if there is none.

        Raises:
            UnavailableError: Redis did not answer.
        """
        return await self._get(self._names.redis_floor(ring))

    async def delete(self, ring: str) -> None:
        """Delete the ring's value (never the floor); the next read of the service writes it again.

        Raises:
            UnavailableError: Redis did not answer; it may have happened.
        """
        async with _translated():
            await self._redis.delete(self._names.redis_current(ring))

    async def ping(self) -> None:
        """Prove that Redis answers, and that it can run the script of every writer.

        Raises:
            UnavailableError: it does not answer.
            UnsupportedServerError: it runs in cluster mode.
        """
        async with _translated():
            try:
                mode = await self._redis.info("cluster")  # first: a cluster that is not up yet refuses every key
            except NoPermissionError:
                mode = {}  # who may not ask learns it from the first write
            if mode.get("cluster_enabled") == 1:
                raise _cluster()
            await self._redis.get(self._names.redis_floor())

    async def _get(self, key: str) -> bytes | None:
        async with _translated():
            try:
                value = await self._redis.get(key)
            except ResponseError as error:
                if "WRONGTYPE" not in str(error):
                    raise
                return b""
        return value if value is None or isinstance(value, bytes) else str(value).encode()


def _cluster() -> UnsupportedServerError:
    return UnsupportedServerError(
        "Redis runs in cluster mode, where the keys of a ring lie on different nodes and no script writes both;"
        " give REDIS_URL a server with cluster-enabled no",
        hint='redis-cli -u "$REDIS_URL" CONFIG GET cluster-enabled',
    )


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (ClusterCrossSlotError, MovedError) as error:
        raise _cluster() from error
    except (RedisError, OSError, TimeoutError) as error:
        raise UnavailableError(f"Redis is not available: {type(error).__name__}: {str(error)[:200]}") from error
