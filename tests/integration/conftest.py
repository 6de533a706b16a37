"""constitution-service and the worker as processes of their own, on the servers of `tests/conftest.py`."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from dulwich.repo import Repo
from redis.asyncio import Redis
from temporalio.client import Client

from activities.archive import ArchiveRelease
from activities.publish import Publish
from activities.runs import RunsActivities
from adapters import postgres
from adapters.archive import GitArchive
from adapters.event_log import KafkaEventLog
from adapters.ledger import PostgresLedger
from adapters.redis_cache import ConstitutionCache
from adapters.redis_client import connect
from adapters.runs import TemporalRuns
from constitution.names import Names
from tests.integration.activity_support import Records, make_config
from tests.integration.disaster import Disaster
from tests.ports import free_port
from tests.resources import Database, Slack
from tests.world.author import Author
from tests.world.database import lent
from tests.world.environment import ServiceEnvironment, serving
from tests.world.environment import service_settings as settings_of_service
from tests.world.files import CHECKOUT, ENVIRONMENT, EnvironmentFiles
from tests.world.processes import Service
from tests.world.readings import Topics
from worker import signer


@pytest.fixture
def environment_files(tmp_path: Path) -> EnvironmentFiles:
    """Keys, trust policy and environment.toml with two tenants, made by the ceremony."""
    return EnvironmentFiles.make(tmp_path / "environment")


@pytest.fixture
def service_settings(
    environment_files: EnvironmentFiles,
    database_url: str,
    *,
    redis_url: str,
    kafka: dict[str, str],
    names: Names,
    tmp_path: Path,
) -> dict[str, str]:
    """The settings of a service process; a test may start several with them, or change one."""
    servers = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, **kafka}
    return settings_of_service(environment_files, tmp_path, servers, names.namespace)


@pytest.fixture
async def service_environment(
    environment_files: EnvironmentFiles, service_settings: dict[str, str], tmp_path: Path
) -> AsyncIterator[ServiceEnvironment]:
    """A running constitution-service, and who acts on it; SIGTERM must end it with exit code 0."""
    async with serving(environment_files, service_settings, tmp_path / "service.log") as running:
        yield running


@pytest.fixture(scope="module")
async def shared_environment(
    *,
    postgres_settings: dict[str, str],
    valkey_settings: dict[str, str],
    kafka_settings: dict[str, str],
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[ServiceEnvironment]:
    """One that a module's tests share: each goes on from whatever is live there."""
    directory = tmp_path_factory.mktemp("environment")
    files = EnvironmentFiles.make(directory / "files")
    async with lent(postgres_settings, template_database) as addresses:
        servers = valkey_settings | kafka_settings | addresses
        settings = settings_of_service(files, directory, servers, f"t{secrets.token_hex(4)}")
        async with serving(files, settings, directory / "service.log") as running:
            yield running


@pytest.fixture
def constitution_service(service_environment: ServiceEnvironment) -> Service:
    """A running service."""
    return service_environment.service


@pytest.fixture
def author(service_environment: ServiceEnvironment) -> Author:
    """Author, board and worker in one, against that service."""
    return service_environment.author


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of one's own, to look and to vandalise."""
    client = connect(redis_url)
    assert isinstance(client, Redis)
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
    environment_files: EnvironmentFiles,
    ledger: PostgresLedger,
    cache: ConstitutionCache,
    events: KafkaEventLog,
    tmp_path: Path,
) -> Publish:
    config = make_config(environment_files, tmp_path)
    return Publish(service=author.worker, ledger=ledger, cache=cache, events=events, config=config)


@pytest.fixture
def topics(kafka_configuration: dict[str, str | int], names: Names) -> Topics:
    """What is on Kafka."""
    return Topics(kafka_configuration, names)


@pytest.fixture
def worker_files(tmp_path: Path) -> EnvironmentFiles:
    """Keys, trust policy and environment.toml of a worker."""
    made = EnvironmentFiles.make(tmp_path / "environment")
    gate = CHECKOUT / "tests"
    made.environment_file.write_text(f'schema_version = 1\nenvironment = "{ENVIRONMENT}"\ngate = "{gate}"\n')
    return made


@pytest.fixture
def worker_settings(
    *,
    worker_files: EnvironmentFiles,
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
        "ENVIRONMENT_FILE": str(worker_files.environment_file),
        "DATABASE_READER_URL": database.reader_url,
        "REDIS_URL": redis_url,
        **kafka,
        "SLACK_BOT_TOKEN": slack.token,
        "SLACK_API_URL": slack.api_url,
        "CONSTITUTION_SERVICE_URL": "http://127.0.0.1:9",
        "CLIENT_KEY_FILE": str(worker_files.directory / "keys" / "worker.jwk"),
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
    constitution_service: Service,
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


@pytest.fixture
def records(
    *,
    author: Author,
    environment_files: EnvironmentFiles,
    kafka_configuration: dict[str, str],
    names: Names,
    temporal_client: Client,
    tmp_path: Path,
) -> Records:
    path = tmp_path / "archive"
    Repo.init(str(path), mkdir=True).close()
    runs = TemporalRuns(temporal_client)
    events = KafkaEventLog({name: str(value) for name, value in kafka_configuration.items()}, names)
    config = make_config(environment_files, tmp_path)
    repository = GitArchive(path, signer(ENVIRONMENT, environment_files.key("worker")))
    archive = ArchiveRelease(
        service=author.worker,
        archive=repository,
        events=events,
        runs=runs,
        config=config,
    )
    return Records(archive, RunsActivities(runs=runs), repository, path, config)
