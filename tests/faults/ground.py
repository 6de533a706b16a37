"""The ground on which cells are run: one set of real servers, a Toxiproxy before each of them, and towns on top.

Every connection of our own processes to a server, to constitution-service and to Slack goes through a proxy; the
auditor and the people of a cell go directly.
"""

import asyncio
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import asyncpg
from slack_sdk import WebClient
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError

from deploy.embedded.kafka import PROXIED
from deploy.embedded.postgres import OWNER, grant
from deploy.embedded.services import SERVICES, TARGETS
from deploy.embedded.stack import Progress, Stack
from deploy.embedded.stack_directory import StackDirectory
from tests.faults.auditor import Auditor
from tests.faults.redis_wire import RedisWire
from tests.faults.toxics import Toxics
from tests.workflow.town import Town

SERVERS = ("temporal", "postgres", "valkey", "kafka", "prometheus", "slack-emulator", "versitygw", "toxiproxy")
# Proxy -> the settings whose address it stands before.
PROXIES = {
    "temporal": ("TEMPORAL_ADDRESS",),
    "postgres": ("DATABASE_URL",),
    "postgres-reader": ("DATABASE_READER_URL",),
    "valkey": ("REDIS_URL",),
    "kafka": ("KAFKA_BOOTSTRAP_SERVERS",),
    "prometheus": ("PROMETHEUS_URL",),
    "artifact-store": ("AWS_ENDPOINT_URL",),
    "slack": ("SLACK_API_URL",),
    "constitution-service": ("CONSTITUTION_SERVICE_URL",),
    "policy-engine-1": ("POLICY_ENGINE_1_URL",),
    "orchestrator-1": ("ORCHESTRATOR_1_URL",),
    "orchestrator-2": ("ORCHESTRATOR_2_URL",),
}
# Those that stand before processes of the town itself.
OWN = ("CONSTITUTION_SERVICE_URL", "POLICY_ENGINE_1_URL", "ORCHESTRATOR_1_URL", "ORCHESTRATOR_2_URL")
ADMIN = ("DATABASE_ADMIN_URL", "SLACK_ADMIN_TOKEN")
DATABASES = ("DATABASE_URL", "DATABASE_READER_URL", "DATABASE_MIGRATION_URL")
RECONCILE = "constitution-reconcile/"
GIVEN = ("TEMPORAL_", "DATABASE_", "REDIS_", "KAFKA_", "PROMETHEUS_URL", "SLACK_", "ARTIFACT_STORE_", "AWS_")


class Place(Town):
    """A town whose processes reach everything through proxies.

    Args:
        directory: where everything is kept.
        direct: settings of the servers themselves.
        proxied: the same through the proxies; with CONSTITUTION_SERVICE_URL.
        targets: folder where Prometheus looks for targets.
        channel: the name of its Slack channel.
        namespace: NAMESPACE.
        client: connected to Temporal itself.
    """

    def __init__(
        self,
        directory: Path,
        *,
        direct: dict[str, str],
        proxied: dict[str, str],
        targets: str,
        channel: str,
        namespace: str,
        client: Client,
    ) -> None:
        super().__init__(directory, direct, channel=channel, namespace=namespace, client=client)
        self._direct = direct
        redis = urlsplit(direct["REDIS_URL"])
        self.redis_wire = RedisWire(lambda: (redis.hostname or "", redis.port or 6379), self.names.redis_floor())
        overrides = {"NAMESPACE": namespace, "PROMETHEUS_TARGETS": targets} | {name: proxied[name] for name in OWN}
        given = {name: value for name, value in proxied.items() if name not in OWN}
        names = [server.name for server in SERVICES]
        self.stack = Stack(directory, names, environment=given, overrides=overrides)
        self._auditor: Auditor | None = None

    def _write_environment(self) -> None:
        """Add a strategy that looks at Prometheus for a moment: traffic is not what these cells are about."""
        super()._write_environment()
        file = self.home / "environment.toml"
        strategy = {"watch_seconds": 2, "baseline_seconds": 30, "scrape_seconds": 1.0}
        actions = {"on_no_data": '"continue"', "on_cannot_tell": '"continue"', "on_anomaly": '"rollback"'}
        lines = (f"{name} = {value}" for name, value in (strategy | actions).items())
        file.write_text(file.read_text() + "\n".join(("[strategies.glance]", *lines)) + "\n")

    @property
    def auditor(self) -> Auditor:
        """The town's auditor, who remembers what it read before."""
        if self._auditor is None:
            self._auditor = Auditor(self.settings | self._direct, self.client)
        return self._auditor

    async def family_runs(self) -> list[str]:
        """Open updates, rollbacks and guards; reconciliation comes and goes by its schedule."""
        return [run for run in await self.open_runs() if RECONCILE not in run]

    async def stop(self, *, keep_logs: bool = False) -> None:
        """Stop all of it, the wires too."""
        await super().stop(keep_logs=keep_logs)
        self.redis_wire.close()

    async def pids(self, name: str) -> int:
        """The process of one of the town's services."""
        statuses = await asyncio.to_thread(self.stack.status)
        found = next(status.pid for status in statuses if status.name == name)
        assert found is not None, f"{name} does not run"
        return found


@dataclass(kw_only=True)
class Ground:
    """Servers, proxies, and the town that stands now.

    Args:
        directory: where everything is kept.
        say: called with news for people.
    """

    directory: Path
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self._proxies = StackDirectory(self.directory / "proxies")  # keeps the proxies' ports reserved
        self.ports = {name: self._proxies.port(name) for name in PROXIES}
        self.servers = Stack(
            self.directory / "servers",
            SERVERS,
            environment={},
            overrides={PROXIED: str(self.ports["kafka"])},
            progress=self._progress,
        )
        self.place: Place | None = None
        self._database = ""
        self._made = 0

    def _progress(self, news: Progress) -> None:
        if news.text == "running":
            self.say(f"  {news.server} runs after {news.seconds:.0f} s")

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.servers.start)
        self.direct = {n: v for n, v in self.servers.settings().items() if n.startswith(GIVEN)}
        self.toxics = Toxics(self.servers.settings()["TOXIPROXY_URL"])
        self.client = await Client.connect(self.direct["TEMPORAL_ADDRESS"], data_converter=pydantic_data_converter)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()
        await self.toxics.aclose()
        await asyncio.to_thread(self.servers.erase)
        self._proxies.close()

    async def fresh(self) -> Place:
        """Leave the town that stands, and build another, where nothing has ever been live."""
        await self.leave()
        self._made += 1
        namespace = f"f{secrets.token_hex(4)}"
        self._database = f"faults_{secrets.token_hex(6)}"
        await self._create_database()
        direct = {name: value for name, value in self.direct.items() if name not in (*ADMIN, PROXIED)}
        direct |= {name: _in_database(self.direct[name], self._database) for name in DATABASES}
        channel = f"release-{namespace}"
        WebClient(self.direct["SLACK_ADMIN_TOKEN"], base_url=direct["SLACK_API_URL"]).conversations_create(name=channel)
        proxied = dict(direct)
        for proxy, names in PROXIES.items():
            for name in names:
                if name in OWN:
                    proxied[name] = f"http://127.0.0.1:{self.ports[proxy]}"
                elif name in direct:
                    proxied[name] = direct[name].replace(f":{_port(direct[name])}", f":{self.ports[proxy]}", 1)
        place = Place(
            self.directory / f"town-{self._made}",
            direct=direct,
            proxied=proxied,
            targets=self.servers.settings()["PROMETHEUS_TARGETS"],
            channel=channel,
            namespace=namespace,
            client=self.client,
        )
        await self._lead_proxies(place)
        self.place = place
        await place.start()
        for target in target_names():
            if target in PROXIES:
                await self.toxics.put(target, self.ports[target], f"127.0.0.1:{place.port(target)}")
        return place

    async def _lead_proxies(self, place: Place) -> None:
        upstreams = {proxy: f"127.0.0.1:{_port(self.direct[names[0]])}" for proxy, names in PROXIES.items()
                     if names[0] in self.direct}  # fmt: skip
        upstreams["kafka"] = self.servers.settings()["KAFKA_PROXIED_UPSTREAM"]
        upstreams["valkey"] = f"127.0.0.1:{place.redis_wire.port}"
        upstreams["slack"] = f"127.0.0.1:{_port(place.slack_wire.url)}"
        upstreams["constitution-service"] = f"127.0.0.1:{_port(place.service_wire.url)}"
        for proxy, upstream in upstreams.items():
            await self.toxics.put(proxy, self.ports[proxy], upstream)

    async def _create_database(self) -> None:
        admin = await asyncpg.connect(self.direct["DATABASE_ADMIN_URL"])
        try:
            await admin.execute(f"CREATE DATABASE {self._database} OWNER {OWNER}")
        finally:
            await admin.close()
        await grant(_in_database(self.direct["DATABASE_MIGRATION_URL"], self._database))

    async def leave(self, *, keep: bool = False) -> None:
        """Stop the town that stands; its open runs are terminated, so that no worker ever takes them up again."""
        if self.place is None:
            return
        place, self.place = self.place, None
        await self.toxics.heal()
        await place.stop(keep_logs=keep)
        async for schedule in await self.client.list_schedules():
            if schedule.id.startswith(place.names.namespace):
                await self.client.get_schedule_handle(schedule.id).delete()
        for workflow_id in await place.open_runs():
            try:
                await self.client.get_workflow_handle(workflow_id).terminate("the cell is over")
            except RPCError:
                continue  # it has closed meanwhile, with its parent
        admin = await asyncpg.connect(self.direct["DATABASE_ADMIN_URL"])
        try:
            await admin.execute(f"DROP DATABASE {self._database} WITH (FORCE)")
        finally:
            await admin.close()

    def owner_of(self, process: str) -> Stack:
        """The stack in which a process runs."""
        if process in SERVERS:
            return self.servers
        assert self.place is not None
        return self.place.stack


def _port(address: str) -> int:
    """The port in a URL or host:port."""
    found = urlsplit(address if "://" in address else f"//{address}").port
    assert found is not None, address
    return found


def _in_database(url: str, name: str) -> str:
    address, _, options = url.partition("?")
    return f"{address.rpartition('/')[0]}/{name}?{options}"


def target_names() -> tuple[str, ...]:
    """The targets of every town."""
    return tuple(TARGETS)


def root() -> Path:
    """Where the matrix keeps its servers: one folder per process."""
    return Path(__file__).resolve().parents[2] / "var" / "chaos" / f"run-{os.getpid()}"
