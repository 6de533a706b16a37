"""The Redis value of each ring's current constitution, and the floor that keeps it from going back.

One Lua script for every writer: a generation below the floor is refused. The floor key is never deleted, so
``redis-cli DEL constitution:current`` by hand is safe at any moment. A value read here is an untrusted hint: the
caller verifies it (signatures.current.verify_current; invariant 8).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import (
    ClusterCrossSlotError,
    MovedError,
    NoPermissionError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from adapters.redis_client import Client
from constitution.errors import UnavailableError, UnsupportedServerError
from constitution.names import DEFAULT_RING, Names
from constitution.release import CurrentConstitution

MAX_VALUE = 7 * 1024 * 1024  # bytes; a push of 4 MiB: a document of 1 MiB, escaped twofold, and signatures in base64

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


class ConstitutionCache:
    """Reads and writes the value of each ring.

    Args:
        redis: a client (``adapters.redis_client``).
        names: for the keys.
    """

    def __init__(self, redis: Client, names: Names) -> None:
        self._redis = redis
        self._names = names
        self._clustered = isinstance(redis, RedisCluster)
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
        keys = [self._names.redis_current(ring), self._floor(ring)]
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
        return await self._get(self._floor(ring))

    async def delete(self, ring: str) -> None:
        """Delete the ring's value (never the floor); the relay, or a `no-cache` read of the service, writes it again.

        Raises:
            UnavailableError: Redis did not answer; it may have happened.
        """
        async with _translated():
            await self._redis.delete(self._names.redis_current(ring))

    async def ping(self) -> None:
        """Prove that Redis answers, and that it can run the script of every writer.

        Raises:
            UnavailableError: it does not answer.
            UnsupportedServerError: it runs in cluster mode, and the client is of one server; or the other way round.
        """
        async with _translated():
            if not self._clustered and await self._is_cluster():  # first: one that is not up yet refuses every key
                raise _cluster()
            await self._redis.get(self._floor(DEFAULT_RING))

    async def _is_cluster(self) -> bool:
        try:
            mode = await self._redis.info("cluster")
        except NoPermissionError:
            return False  # who may not ask learns it from the first write
        return bool(mode.get("cluster_enabled") == 1)

    def _floor(self, ring: str) -> str:
        return self._names.redis_floor(ring, clustered=self._clustered)

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
        "Redis runs in cluster mode, where REDIS_URL names nodes of the cluster: redis+cluster://HOST:PORT,HOST:PORT",
        hint='redis-cli -u "$REDIS_URL" CLUSTER NODES',
    )


def _no_cluster() -> UnsupportedServerError:
    return UnsupportedServerError(
        "REDIS_URL is redis+cluster://…, but what answers there does not run in cluster mode, or this user may not ask"
        " for the nodes (CLUSTER SLOTS)",
        hint="give it as redis://HOST:PORT/DB; what a user needs is in docs/deploy.md",
    )


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (ClusterCrossSlotError, MovedError) as error:
        raise _cluster() from error
    except RedisClusterException as error:  # no RedisError, and the driver's only word for all that befell its start
        if "Cluster mode is not enabled" in str(error):
            raise _no_cluster() from error
        raise _unavailable(error) from error
    except (RedisError, OSError, TimeoutError) as error:
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> UnavailableError:
    return UnavailableError(f"Redis is not available: {type(error).__name__}: {str(error)[:200]}")
