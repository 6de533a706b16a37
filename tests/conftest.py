"""Real servers for tests: each started once, when the first test needs it, and isolated per test.

The servers live in `var/test-<pid>` and end with the test run, however it ends; its processes share them. They are the
run's own: settings of the user's servers (DATABASE_URL, …) are ignored here, so that no test touches them.
A server that does not start is a failure, never a skip.

Set TEST_STACK to the directory of a running stack to use that one, and leave it running.
"""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from deploy.embedded.stack import Stack
from deploy.embedded.stack_directory import CHECKOUT
from tests.limit import set_limit
from tests.resources import Database, Prometheus, Slack

if TYPE_CHECKING:
    from temporalio.client import Client  # takes a second to import: only for tests that use it

MIGRATIONS = CHECKOUT / "deploy" / "sql" / "migrations"

LONGEST_FIRST = ("attack", "faults", "model", "workflow", "integration")

# Unit tests that take seconds each: `make check` leaves them to `make test`.
SIMULATIONS = {
    "test_backtest",
    "test_bet_slack",
    "test_embedded_ports",
    "test_limits",
    "test_openpgp_selfsigs",
    "test_outgoing_calls",
    "test_prediction",
    "test_setting_names",
    "test_spike_bet",
    "test_spike_family",
    "test_spike_twin",
    "test_watch_fleet",
    "test_watch_show",
    "test_watch_slack",
}

KEPT = timedelta(days=1)  # servers and logs of a failed run

# The session fixture of each server.
FIXTURES = {
    "temporal_settings": "temporal",
    "postgres_settings": "postgres",
    "valkey_settings": "valkey",
    "kafka_settings": "kafka",
    "prometheus_settings": "prometheus",
    "slack_settings": "slack-emulator",
}


# No example is judged by a clock: the machine may be busy with other work.
settings.register_profile("no clock", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=15)  # of `make check`
settings.load_profile("no clock")


def pytest_configure() -> None:
    """Listen to Ctrl-C again: `make test &` in a script ignores it, and so would every program that a test starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take long: two at a time, none is waited for alone at the end. Mark and limit each."""

    def rank(item: pytest.Item) -> int:
        folders = (number for number, folder in enumerate(LONGEST_FIRST) if folder in item.path.parts)
        return next(folders, len(LONGEST_FIRST))

    items.sort(key=rank)
    for item in items:
        if item.path.stem in SIMULATIONS:
            item.add_marker("simulation")
        set_limit(item)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """Give all processes of a test run one set of servers: a second Temporal and Kafka would cost a third of a core."""
    if "TEST_STACK" not in os.environ:
        stack = config.stash[_SHARED] = Stack(CHECKOUT / "var" / f"test-{os.getpid()}", (), environment={})
        stack.begin()  # no server yet: the first test that needs one starts it
        os.environ["TEST_STACK"] = str(stack.directory)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The servers of this test run; those that the selected tests need start at once in the background."""
    shared = os.environ.get("TEST_STACK")
    _forget_old_runs()
    directory = Path(shared) if shared else CHECKOUT / "var" / f"test-{os.getpid()}"
    stack = Stack(directory, (), environment={})
    needed = {FIXTURES[name] for item in request.session.items for name in item.fixturenames if name in FIXTURES}  # type: ignore[attr-defined]
    if needed:
        stack.begin(*sorted(needed))
    yield stack
    if not shared:
        _end(stack, failed=bool(request.session.testsfailed))


def _end(stack: Stack, *, failed: bool) -> None:
    if failed:
        stack.stop()  # the logs tell why
    else:
        stack.erase()


def _forget_old_runs() -> None:
    """Delete what failed runs left to be looked at, after a day."""
    for directory in (CHECKOUT / "var").glob("test-*"):
        if time.time() - directory.stat().st_mtime > KEPT.total_seconds():
            Stack(directory, environment={}).erase()


@pytest.fixture(scope="session")
def temporal_settings(stack: Stack) -> dict[str, str]:
    """TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_UI_URL."""
    return _started(stack, "temporal")


@pytest.fixture(scope="session")
def postgres_settings(stack: Stack) -> dict[str, str]:
    """DATABASE_ADMIN_URL and the stack's own database; tests use `database`."""
    return _started(stack, "postgres")


@pytest.fixture(scope="session")
def valkey_settings(stack: Stack) -> dict[str, str]:
    """REDIS_URL."""
    return _started(stack, "valkey")


@pytest.fixture(scope="session")
def kafka_settings(stack: Stack) -> dict[str, str]:
    """KAFKA_BOOTSTRAP_SERVERS, KAFKA_USERNAME, KAFKA_PASSWORD, KAFKA_SECURITY_PROTOCOL."""
    return _started(stack, "kafka")


@pytest.fixture(scope="session")
def prometheus_settings(stack: Stack) -> dict[str, str]:
    """PROMETHEUS_URL, PROMETHEUS_TARGETS."""
    return _started(stack, "prometheus")


@pytest.fixture(scope="session")
def slack_settings(stack: Stack) -> dict[str, str]:
    """SLACK_BOT_TOKEN, SLACK_READER_TOKEN, SLACK_ADMIN_TOKEN, SLACK_API_URL of the emulator."""
    return _started(stack, "slack-emulator")


@pytest.fixture(scope="session")
def servers(
    *,
    temporal_settings: dict[str, str],
    postgres_settings: dict[str, str],
    valkey_settings: dict[str, str],
    kafka_settings: dict[str, str],
    prometheus_settings: dict[str, str],
    slack_settings: dict[str, str],
) -> dict[str, str]:
    """The settings of all servers that an environment needs."""
    return (
        temporal_settings | postgres_settings | valkey_settings | kafka_settings | prometheus_settings | slack_settings
    )


def _started(stack: Stack, name: str) -> dict[str, str]:
    stack.start(name)
    return stack.settings()


# --- isolation per test


@pytest.fixture
def namespace() -> str:
    """A fresh value for the setting NAMESPACE: prefixes topics, groups, keys, task queues, workflow ids."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
async def template_database(postgres_settings: dict[str, str]) -> AsyncIterator[str]:
    """Name of a database to which `deploy/sql/migrations` were applied once."""
    from tests.world import database

    name = f"template_{secrets.token_hex(6)}"
    addresses = await database.create(postgres_settings, name)
    await asyncio.to_thread(_migrate, addresses["DATABASE_MIGRATION_URL"])
    yield name
    await database.drop(postgres_settings, name)


def _migrate(owner_url: str) -> None:
    dbmate = str(Path(sys.executable).with_name("dbmate"))
    command = [dbmate, "--migrations-dir", str(MIGRATIONS), "--no-dump-schema", "up"]
    # The address holds a password: it travels in the environment, never in the arguments.
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": owner_url}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, cwd=CHECKOUT)  # noqa: S603
    assert done.returncode == 0, f"the migrations failed: {done.stdout}{done.stderr}"


@pytest.fixture
async def database(postgres_settings: dict[str, str], template_database: str) -> AsyncIterator[Database]:
    """A fresh database, dropped afterwards."""
    from tests.world import database

    async with database.lent(postgres_settings, template_database) as addresses:
        yield Database.of(addresses)


@pytest.fixture
def database_url(database: Database) -> str:
    """The fresh database's address as the service's role."""
    return database.url


@pytest.fixture
def redis_url(valkey_settings: dict[str, str]) -> str:
    """Address with password; isolate by `namespace`."""
    return valkey_settings["REDIS_URL"]


@pytest.fixture
def kafka(kafka_settings: dict[str, str]) -> dict[str, str]:
    """The four KAFKA_* settings; isolate by `namespace`. The broker creates no topic by itself."""
    return {name: value for name, value in kafka_settings.items() if name.startswith("KAFKA_")}


@pytest.fixture
def kafka_configuration(kafka: dict[str, str]) -> dict[str, str | int | float | bool]:
    """The same as librdkafka's configuration, for confluent_kafka's Producer, Consumer and AdminClient."""
    from deploy.embedded.kafka import client_configuration

    return client_configuration(kafka)


@pytest.fixture(scope="session")
async def temporal_client(temporal_settings: dict[str, str]) -> "Client":
    """A client with the pydantic data converter; isolate by `namespace` (task queue, workflow ids)."""
    from temporalio.client import Client
    from temporalio.contrib.pydantic import pydantic_data_converter

    return await Client.connect(
        temporal_settings["TEMPORAL_ADDRESS"],
        namespace=temporal_settings["TEMPORAL_NAMESPACE"],
        data_converter=pydantic_data_converter,
    )


@pytest.fixture
def prometheus(prometheus_settings: dict[str, str]) -> Iterator[Prometheus]:
    """Prometheus with a scrape interval of one second; give targets a label that is unique to the test."""
    server = Prometheus(prometheus_settings["PROMETHEUS_URL"], Path(prometheus_settings["PROMETHEUS_TARGETS"]))
    yield server
    server.forget()


@pytest.fixture
def slack(slack_settings: dict[str, str], namespace: str) -> Slack:
    """The emulator with a fresh channel."""
    from slack_sdk import WebClient

    token, api_url = slack_settings["SLACK_BOT_TOKEN"], slack_settings["SLACK_API_URL"]
    name = f"release-{namespace}"
    created = WebClient(slack_settings["SLACK_ADMIN_TOKEN"], base_url=api_url).conversations_create(name=name)
    return Slack(token=token, api_url=api_url, channel=created["channel"]["id"], channel_name=name)


# --- the end of the test process


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember the exit code for `pytest_unconfigure`."""
    session.config.stash[_EXIT_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave without the interpreter's finalisation where Temporal's SDK was used.

    Its runtime threads crash a finalising interpreter now and then (temporalio/sdk-python#300), after all tests
    have been reported, and a green run would end with SIGSEGV.
    """
    if _SHARED in config.stash:
        _end(config.stash[_SHARED], failed=config.stash.get(_EXIT_STATUS, 1) != 0)
    if "temporalio.bridge.temporal_sdk_bridge" in sys.modules and _EXIT_STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_EXIT_STATUS])


_EXIT_STATUS = pytest.StashKey[int]()
_SHARED = pytest.StashKey[Stack]()
