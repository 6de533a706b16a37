"""constitution-service and the worker as processes of their own, on the servers of `tests/conftest.py`."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from dulwich.repo import Repo
from redis.asyncio import Redis

from activities.publish import Publish
from adapters import postgres
from adapters.event_log import KafkaEventLog
from adapters.ledger import PostgresLedger
from adapters.redis_cache import ConstitutionCache, connect
from constitution.names import Names
from tests.activity_support import make_config
from tests.conftest import CHECKOUT
from tests.constitution_service_support import (
    ENVIRONMENT,
    Author,
    Received,
    ServiceProcess,
    Site,
    make_site,
)
from tests.disaster import Disaster
from tests.ports import free_port
from tests.resources import Database, Slack


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
async def ledger(database: Database) -> AsyncIterator[PostgresLedger]:
    pool = postgres.Database(database.reader_url, application_name="test")
    await pool.open()
    yield PostgresLedger(pool, ENVIRONMENT)
    await pool.close()


@pytest.fixture
def events(kafka_configuration: dict[str, str], names: Names) -> KafkaEventLog:
    return KafkaEventLog({name: str(value) for name, value in kafka_configuration.items()}, names)


@pytest.fixture
def publish(
    *,
    author: Author,
    service_site: Site,
    ledger: PostgresLedger,
    cache: ConstitutionCache,
    events: KafkaEventLog,
    tmp_path: Path,
) -> Publish:
    config = make_config(service_site, tmp_path)
    return Publish(service=author.worker, ledger=ledger, cache=cache, events=events, config=config)


@pytest.fixture
def topics(kafka_configuration: dict[str, str | int], names: Names) -> Topics:
    """What is on Kafka."""
    return Topics(kafka_configuration, names)


@pytest.fixture
def worker_site(tmp_path: Path) -> Site:
    """Keys, trust policy and environment.toml of a worker."""
    made = make_site(tmp_path / "site")
    gate = CHECKOUT / "tests"
    made.environment_file.write_text(f'schema_version = 1\nenvironment = "{ENVIRONMENT}"\ngate = "{gate}"\n')
    return made


@pytest.fixture
def worker_settings(
    *,
    worker_site: Site,
    database: Database,
    redis_url: str,
    kafka: dict[str, str],
    slack: Slack,
    temporal_settings: dict[str, str],
    namespace: str,
    tmp_path: Path,
) -> dict[str, str]:
    """The settings of a worker; constitution-service is not there."""
    Repo.init(str(tmp_path / "archive"), mkdir=True).close()
    return {
        "NAMESPACE": namespace,
        "ENVIRONMENT_FILE": str(worker_site.environment_file),
        "DATABASE_READER_URL": database.reader_url,
        "REDIS_URL": redis_url,
        **kafka,
        "SLACK_BOT_TOKEN": slack.token,
        "SLACK_API_URL": slack.api_url,
        "CONSTITUTION_SERVICE_URL": "http://127.0.0.1:9",
        "CLIENT_KEY_FILE": str(worker_site.directory / "keys" / "worker.jwk"),
        "ARCHIVE_REPOSITORY": str(tmp_path / "archive"),
        "EVIDENCE_DIRECTORY": str(tmp_path / "evidence"),
        "METRICS_PORT": str(free_port()),
        "TEMPORAL_ADDRESS": temporal_settings["TEMPORAL_ADDRESS"],
        "TEMPORAL_NAMESPACE": temporal_settings["TEMPORAL_NAMESPACE"],
        "HOME": str(tmp_path),
        "RECONCILE_SECONDS": "0",
    }


@pytest.fixture
def disaster(
    *,
    author: Author,
    constitution_service: ServiceProcess,
    service_settings: dict[str, str],
    database: Database,
    postgres_settings: dict[str, str],
    template_database: str,
    redis: Redis,
    names: Names,
    kafka_configuration: dict[str, Any],
    tmp_path: Path,
) -> Disaster:
    return Disaster(
        author=author,
        service=constitution_service,
        settings=service_settings,
        database=database,
        admin_url=postgres_settings["DATABASE_ADMIN_URL"],
        template=template_database,
        redis=redis,
        names=names,
        kafka=AdminClient(kafka_configuration),
        backup=tmp_path / "backup.dump",
    )
