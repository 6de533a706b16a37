"""constitution-service as a process of its own, on the servers of `tests/conftest.py`."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from redis.asyncio import Redis

from adapters.redis_cache import ConstitutionCache, connect
from constitution.names import Names
from tests.conftest import Database
from tests.constitution_service_support import Author, Received, ServiceProcess, Site, make_site


@pytest.fixture
def service_site(tmp_path: Path) -> Site:
    """Keys, trust policy and environment.toml with two tenants, made by the ceremony."""
    return make_site(tmp_path / "site", tenants=("global", "acme"))


@pytest.fixture
def service_settings(
    service_site: Site, database: Database, *, redis_url: str, kafka: dict[str, str], names: Names, tmp_path: Path
) -> dict[str, str]:
    """The settings of a service process; a test may start several with them, or change one."""
    return {
        "NAMESPACE": names.namespace,
        "ENVIRONMENT_FILE": str(service_site.environment_file),
        "DATABASE_URL": database.url,
        "REDIS_URL": redis_url,
        **kafka,
        "ARTIFACT_STORE_URL": f"file://{tmp_path}/store",
        "STATEMENT_KEY_FILE": str(service_site.directory / "keys" / "constitution-service.jwk"),
        "SPOOL_DIRECTORY": str(tmp_path / "spool"),
    }


@pytest.fixture
def constitution_service(service_settings: dict[str, str], tmp_path: Path) -> Iterator[ServiceProcess]:
    """A running service; SIGTERM must end it with exit code 0."""
    process = ServiceProcess(service_settings, tmp_path / "service.log").start()
    yield process
    if process.killed:
        process.stop()
    else:
        assert process.stop() == 0, process.log.read_text()[-4000:]


@pytest.fixture
async def author(service_site: Site, constitution_service: ServiceProcess) -> AsyncIterator[Author]:
    """Author, board and worker in one, against that service."""
    author = Author(service_site, constitution_service.url)
    yield author
    await author.aclose()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of one's own, to look and to vandalise."""
    client = connect(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def names(namespace: str) -> Names:
    """The names that this test's service uses."""
    return Names(namespace)


@pytest.fixture
def cache(redis: Redis, names: Names) -> ConstitutionCache:
    """The adapter over that client."""
    return ConstitutionCache(redis, names)


class Topics:
    """Reads a topic from its first record on, committed records only."""

    def __init__(self, configuration: dict[str, str | int], names: Names) -> None:
        self._configuration = configuration
        self._names = names

    async def updated(self) -> list[Received]:
        return await asyncio.to_thread(self._read, self._names.topic_updated())

    async def audit(self) -> list[Received]:
        return await asyncio.to_thread(self._read, self._names.topic_audit())

    def _read(self, topic: str) -> list[Received]:
        consumer = Consumer(
            {**self._configuration, "group.id": "nobody", "enable.auto.commit": False, "enable.partition.eof": True}
        )
        try:
            if topic not in consumer.list_topics(timeout=10).topics:
                return []
            consumer.assign([TopicPartition(topic, 0, 0)])
            found: list[Received] = []
            while True:
                message = consumer.poll(10)
                assert message is not None, f"{topic} does not answer"
                if message.error() is not None:
                    return found
                found.append(Received.of(message))
        finally:
            consumer.close()


@pytest.fixture
def topics(kafka_configuration: dict[str, str | int], names: Names) -> Topics:
    """What is on Kafka."""
    return Topics(kafka_configuration, names)
