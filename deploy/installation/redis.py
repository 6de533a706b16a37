"""Redis: does it answer, may we write below our prefix, and would it throw our floor away?"""

import secrets
from collections.abc import AsyncIterator

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoPermissionError, RedisError

from adapters.redis_cache import ConstitutionCache
from adapters.redis_client import Client, connect
from constitution.errors import ConstitutionError
from constitution.names import Names
from deploy.installation.check import Check, cannot_tell, missing, not_set, ok, refused
from deploy.installation.settings import InstallationSettings

PLACE = "REDIS_URL"
PING = 'redis-cli -u "$REDIS_URL" PING'
RIGHTS = "ACL SETUSER … +get +set +del +exists +strlen +eval +evalsha +script|load +ping +info  # docs/deploy.md"


async def redis(settings: InstallationSettings) -> AsyncIterator[Check]:
    """Look at Redis; one key of a random name is written, read and deleted."""
    if settings.redis_url is None:
        yield not_set(PLACE, "constitution-service")
        return
    try:
        client = connect(settings.redis_url.get_secret_value())
    except ConstitutionError as error:
        yield refused(PLACE, "address", error, PING)
        return
    try:
        await ConstitutionCache(client, settings.names).ping()
        yield await _version(client)
        yield await _rights(client, settings.names)
        yield await _eviction(client)
    except ConstitutionError as error:
        yield refused(PLACE, "answers", error, PING)
    except (RedisError, OSError) as error:
        yield missing(PLACE, "answers", f"{type(error).__name__}: {str(error)[:200]}", PING)
    finally:
        await client.aclose()


async def _version(client: Client) -> Check:
    if isinstance(client, RedisCluster):
        return ok(PLACE, "answers", "answers as a cluster; its nodes were not asked for their versions")
    try:
        found = await client.info("server")
    except NoPermissionError:
        return ok(PLACE, "answers", "answers; this user may not ask for its version")
    name = found.get("server_name") or "redis"
    return ok(PLACE, "answers", f"{name} {found.get(f'{name}_version') or found.get('redis_version')}")


async def _rights(client: Client, names: Names) -> Check:
    key = names.redis_current(f"doctor-{secrets.token_hex(8)}")
    try:
        await client.eval("redis.call('SET', KEYS[1], ARGV[1], 'EX', 60) return 1", 1, key, "doctor")
        read = await client.get(key)
        await client.delete(key)
    except NoPermissionError as error:
        detail = f"this user may not write {names.redis_current()}: right for the worker alone ({str(error)[:120]})"
        return cannot_tell(PLACE, "rights", detail, RIGHTS)
    if read != b"doctor":
        return missing(PLACE, "rights", "a key that was just written reads as something else", PING)
    return ok(PLACE, "rights", f"may write, read and delete under {names.redis_current()}:")


async def _eviction(client: Client) -> Check:
    if isinstance(client, RedisCluster):
        command = 'redis-cli -u "$REDIS_URL" CONFIG GET maxmemory-policy  # of each node'
        return cannot_tell(PLACE, "eviction", "each node of a cluster has a policy of its own", command)
    try:
        policy = (await client.info("memory")).get("maxmemory_policy")
    except NoPermissionError:
        policy = None
    if policy is None:
        command = 'redis-cli -u "$REDIS_URL" CONFIG GET maxmemory-policy  # as its administrator'
        return cannot_tell(PLACE, "eviction", "this user may not ask for its policy of eviction", command)
    if str(policy).startswith("allkeys"):
        detail = f"maxmemory-policy is {policy}: the floor that keeps a release from going back may be evicted"
        return missing(PLACE, "eviction", detail, 'redis-cli -u "$REDIS_URL" CONFIG SET maxmemory-policy noeviction')
    return ok(PLACE, "eviction", f"{policy}: keys without an expiry are kept")
