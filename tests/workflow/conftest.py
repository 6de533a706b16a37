"""A town for the tests of workflows: started once, and anew only after a test that left it otherwise than at rest."""

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from pathlib import Path

import pytest
from slack_sdk import WebClient
from temporalio.client import Client

from constitution.release import CurrentConstitution
from tests.conftest import CHECKOUT, _in_database
from tests.workflow.reconciling import CLOSED, EVERY
from tests.workflow.town import Town


class Towns:
    """Makes towns; one at a time.

    Args:
        servers: settings of the test run's servers.
        template: the database that each town's is cloned from.
        client: connected to Temporal.
        settings: of the towns' own processes, on top of what they need.
    """

    def __init__(
        self, servers: dict[str, str], template: str, client: Client, settings: dict[str, str] | None = None
    ) -> None:
        self._servers = servers
        self._template = template
        self._client = client
        self._settings = settings or {}
        self._town: Town | None = None
        self._database = ""
        self._made = 0

    @classmethod
    def on(cls, *servers: dict[str, str], template: str, client: Client) -> "Towns":
        """Towns on these servers, each given by its settings."""
        prefixes = ("TEMPORAL_", "DATABASE_", "REDIS_", "KAFKA_", "PROMETHEUS_URL", "SLACK_")
        everything = {name: value for settings in servers for name, value in settings.items()}
        return cls({n: value for n, value in everything.items() if n.startswith(prefixes)}, template, client)

    def with_settings(self, **settings: str) -> "Towns":
        """Towns on the same servers, whose processes have other settings."""
        return Towns(self._servers, self._template, self._client, settings)

    async def town(self) -> Town:
        """The town that stands, or a new one, where nothing has ever been live."""
        if self._town is None:
            self._made += 1
            self._town = await self._make(CHECKOUT / "var" / f"test-{os.getpid()}-town-{secrets.token_hex(3)}")
        return self._town

    async def _make(self, directory: Path) -> Town:
        import asyncpg

        from deploy.embedded.postgres import OWNER

        namespace = f"t{secrets.token_hex(4)}"
        self._database = f"town_{secrets.token_hex(6)}"
        admin = await asyncpg.connect(self._servers["DATABASE_ADMIN_URL"])
        try:
            await admin.execute(f"CREATE DATABASE {self._database} TEMPLATE {self._template} OWNER {OWNER}")
        finally:
            await admin.close()
        databases = ("DATABASE_URL", "DATABASE_READER_URL", "DATABASE_MIGRATION_URL")
        admin_only = ("DATABASE_ADMIN_URL", "SLACK_ADMIN_TOKEN")
        servers = {name: value for name, value in self._servers.items() if name not in admin_only}
        servers |= {name: _in_database(self._servers[name], self._database) for name in databases}
        channel = f"release-{namespace}"
        slack = WebClient(self._servers["SLACK_ADMIN_TOKEN"], base_url=servers["SLACK_API_URL"])
        slack.conversations_create(name=channel)
        town = Town(
            directory, servers, channel=channel, namespace=namespace, client=self._client, settings=self._settings
        )
        try:
            await town.start()
        except BaseException:
            await town.stop()
            raise
        return town

    async def leave(self, *, keep_logs: bool = False) -> None:
        """Stop the town; the next test gets a new one."""
        import asyncpg

        if self._town is None:
            return
        town, self._town = self._town, None
        await town.stop(keep_logs=keep_logs)
        admin = await asyncpg.connect(self._servers["DATABASE_ADMIN_URL"])
        try:
            await admin.execute(f"DROP DATABASE {self._database} WITH (FORCE)")
        finally:
            await admin.close()


@pytest.fixture(scope="session")
async def towns(
    *,
    temporal_settings: dict[str, str],
    postgres_settings: dict[str, str],
    valkey_settings: dict[str, str],
    kafka_settings: dict[str, str],
    prometheus_settings: dict[str, str],
    slack_settings: dict[str, str],
    template_database: str,
    temporal_client: Client,
) -> AsyncIterator[Towns]:
    """Where towns come from."""
    towns = Towns.on(
        temporal_settings,
        postgres_settings,
        valkey_settings,
        kafka_settings,
        prometheus_settings,
        slack_settings,
        template=template_database,
        client=temporal_client,
    )
    yield towns
    await towns.leave()


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],  # noqa: ARG001 - the hook's own name
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether the test itself failed: its town is then in a state that nobody knows."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


async def at_rest(
    towns: Towns, request: pytest.FixtureRequest, first: Callable[[Town], Awaitable[None]] | None = None
) -> AsyncIterator[Town]:
    """A town at rest, which must be at rest again after the test; after one that failed it tells where it stood.

    Args:
        towns: where it comes from.
        request: of the test.
        first: waits for what must happen before there can be rest.
    """
    yield await towns.town()
    town = await towns.town()  # the test may have moved to another one
    well = not request.node.stash.get(_FAILED, False)
    try:
        if well:
            town.service_wire.mend()
            town.slack_wire.mend()
            if first is not None:
                await first(town)
            await town.rest()
    except BaseException:
        well = False
        raise
    finally:
        if not well:
            request.node.add_report_section("teardown", "town", await town.story())
            await towns.leave(keep_logs=True)


@pytest.fixture
async def town(towns: Towns, request: pytest.FixtureRequest) -> AsyncIterator[Town]:
    """A town at rest."""
    async for town in at_rest(towns, request):
        yield town


@pytest.fixture(scope="module")
async def minded(towns: Towns) -> AsyncIterator[Towns]:
    """Towns that are reconciled."""
    made = towns.with_settings(RECONCILE_SECONDS=str(EVERY), RECONCILE_CLOSED_SECONDS=str(CLOSED))
    yield made
    await made.leave()


@pytest.fixture
async def live(town: Town) -> CurrentConstitution:
    """What is live in the town: something is."""
    return await town.live()
