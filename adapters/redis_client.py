"""The client of ``REDIS_URL``: one server, the primary that Sentinel names, or a cluster; all are redis-py's own.

redis-py reads ``redis://``, ``rediss://`` (TLS) and ``unix://``. It has no form for several hosts, so those that other
programs use are taken (Prefect, Docket; Redis-Sentinel-Url had the first of them)::

    redis+sentinel://[user:password@]host[:26379],host[:26379]/name-of-the-primary[/db][?option=value]
    redis+cluster://[user:password@]host[:6379],host[:6379][?option=value]

``rediss+…`` is TLS to every server. User, password and options are those of the servers that hold data; the sentinels'
own are ``sentinel_username`` and ``sentinel_password``. Options are redis-py's, as in ``rediss://``.
"""

import re
from datetime import timedelta
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException

from constitution.errors import InvalidRequestError

Client: TypeAlias = Redis | RedisCluster

TIMEOUT = timedelta(milliseconds=900)  # connect and answer; an event waits at most 1 s for Redis (relay.py)
SENTINEL_TIMEOUT = timedelta(milliseconds=250)  # they are asked one after the other, the dead ones too
FORMS: Final = (
    "redis://[user:password@]host:port/db, redis+sentinel://[user:password@]host:port,host:port/primary/db or"
    " redis+cluster://[user:password@]host:port,host:port (with TLS: rediss…)"
)
_SEVERAL = re.compile(r"(rediss?)\+(sentinel|cluster)://(?:([^/?#]*)@)?([^/?#@]+)(/[^?#]*)?(?:\?([^#]*))?")


def connect(url: str) -> Client:
    """Return a client with short timeouts and no retries of its own: callers decide what a silent Redis means.

    Raises:
        InvalidRequestError: the URL cannot be read. No part of it is repeated: it holds a password.
    """
    try:
        several = _SEVERAL.fullmatch(url)
        if several is None:
            return _checked(Redis.from_url(url, **_limits(TIMEOUT)))
        scheme, kind, login, hosts, path, query = several.groups(default="")
        options: dict[str, Any] = {**parse_url(f"{scheme}://{login}@host?{query}"), **_limits(TIMEOUT)}
        del options["host"]
        if options.pop("connection_class", None) is not None:
            options["ssl"] = True
        places = path.strip("/").split("/")
        return _through_sentinel(hosts, places, options) if kind == "sentinel" else _cluster(hosts, places, options)
    except (ValueError, TypeError, RedisClusterException):
        raise InvalidRequestError(f"REDIS_URL cannot be read: it is {FORMS}") from None


def _checked(client: Redis) -> Redis:
    """Refuse an option that no connection takes; redis-py does so at the first use only."""
    pool = client.connection_pool
    pool.connection_class(**pool.connection_kwargs)
    return client


def _limits(timeout: timedelta) -> dict[str, Any]:
    seconds = timeout.total_seconds()
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": Retry(NoBackoff(), 0)}


def _addresses(hosts: str, port: int) -> list[tuple[str, int]]:
    found = [urlsplit(f"//{host}") for host in hosts.split(",")]
    if not all(one.hostname for one in found):
        raise ValueError("a host has no name")
    return [(str(one.hostname), one.port or port) for one in found]


def _through_sentinel(hosts: str, places: list[str], options: dict[str, Any]) -> Redis:
    primary, db = [*places, "0"][:2]
    if not primary or len(places) > 2:
        raise ValueError("the name of the primary is missing")
    own = {name: options.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in options}
    tls = {name: value for name, value in options.items() if name == "ssl" or name.startswith("ssl_")}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        _addresses(hosts, 26379),
        sentinel_kwargs={**_limits(SENTINEL_TIMEOUT), **tls, **own},
        **(options | {"db": int(db)}),
    )
    return _checked(sentinel.master_for(unquote(primary), connection_pool_class=_Pool))


class _Pool(SentinelConnectionPool):
    """Closes the connections to the sentinels, too: redis-py leaves them to whoever made them."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


def _cluster(hosts: str, places: list[str], options: dict[str, Any]) -> RedisCluster:
    if places not in ([""], ["0"]):
        raise ValueError("a cluster has one database")
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in _addresses(hosts, 6379)],
        dynamic_startup_nodes=False,  # the names in the URL outlive the addresses that they had at the start
        **options,
    )
