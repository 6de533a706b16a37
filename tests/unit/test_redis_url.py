"""REDIS_URL: one server, the primary that Sentinel names, a cluster; what cannot be read, and no password in it."""

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedSSLConnection
from redis.crc import key_slot

from adapters.redis_client import connect
from constitution.errors import InvalidRequestError
from constitution.names import Names


def test_sentinels_the_primarys_name_and_both_logins_are_read() -> None:
    client = connect(
        "redis+sentinel://anna:p%40ss@one:1,two/my%20primary/3?sentinel_username=guard&sentinel_password=s%2Fs"
    )
    pool = client.connection_pool  # type: ignore[union-attr]
    assert isinstance(pool, SentinelConnectionPool)
    assert pool.service_name == "my primary"
    given = pool.connection_kwargs
    assert (given["username"], given["password"], given["db"]) == ("anna", "p@ss", 3)
    asked = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"]) for one in asked] == [("one", 1), ("two", 26379)]
    assert {(one["username"], one["password"]) for one in asked} == {("guard", "s/s")}


def test_tls_is_for_the_sentinels_too() -> None:
    client = connect("rediss+sentinel://one/primary?ssl_certfile=/c&ssl_keyfile=/k")
    pool = client.connection_pool  # type: ignore[union-attr]
    assert isinstance(pool, SentinelConnectionPool)
    assert pool.connection_class is SentinelManagedSSLConnection
    (sentinel,) = pool.sentinel_manager.sentinels
    assert sentinel.connection_pool.connection_class is SSLConnection
    assert pool.connection_kwargs["ssl_certfile"] == "/c"
    assert sentinel.connection_pool.connection_kwargs["ssl_certfile"] == "/c"


def test_the_nodes_of_a_cluster_are_read() -> None:
    client = connect("rediss+cluster://anna:pass@one:1,[::1]:2,three?ssl_check_hostname=no")
    assert isinstance(client, RedisCluster)
    assert [(node.host, node.port) for node in client.startup_nodes] == [("one", 1), ("::1", 2), ("three", 6379)]
    given = client.get_connection_kwargs()
    assert (given["username"], given["password"], given["ssl_check_hostname"]) == ("anna", "pass", False)
    assert given["connection_class"] is SSLConnection


def test_one_server_is_read_as_before() -> None:
    client = connect("redis://:hunter2@one:1/2")
    assert isinstance(client, Redis)
    assert client.connection_pool.connection_kwargs["db"] == 2


@pytest.mark.parametrize(
    "url",
    [
        "http://:hunter2@one",
        "redis+sentinel://:hunter2@one",
        "redis+sentinel://:hunter2@one/",
        "redis+sentinel://:hunter2@one/primary/x",
        "redis+sentinel://:hunter2@one/primary/0/0",
        "redis+sentinel://:hunter2@one:x/primary",
        "redis+sentinel://:hunter2@/primary",
        "redis+sentinel://:hunter2@one,,two/primary",
        "redis+sentinel://:hunter2@one/primary?nonsense=1",
        "redis+cluster://:hunter2@one/1",
        "redis+cluster://:hunter2@one?nonsense=1",
        "redis+cluster://:hunter2@one:99999999",
        "redis+other://:hunter2@one",
        "redis://:hunter2@one:x/0",
        "redis://:hunter2@one/0?nonsense=1",
    ],
)
def test_what_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="REDIS_URL cannot be read") as said:
        connect(url)
    assert "hunter2" not in said.value.diagnostics()
    assert "redis+sentinel://" in said.value.message


@pytest.mark.parametrize("ring", ["default", "canary"])
@pytest.mark.parametrize("namespace", ["", "team-a"])
def test_value_and_floor_of_a_ring_lie_in_one_slot_of_a_cluster(namespace: str, ring: str) -> None:
    names = Names(namespace)
    value, floor = names.redis_current(ring), names.redis_floor(ring, clustered=True)
    assert key_slot(value.encode()) == key_slot(floor.encode())
    assert floor != names.redis_floor(ring) != value
