"""Where cells are run: one set of real servers, a Toxiproxy before each of them, and one environment at a time.

Every connection of our own processes to a server, to constitution-service and to Slack goes through a proxy; the
auditor, board and operators of a cell go directly.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError

from constitution.names import Names
from deploy.embedded.kafka import PROXIED
from deploy.embedded.services import TARGETS
from deploy.embedded.stack import Progress, Stack
from deploy.embedded.stack_directory import StackDirectory
from tests.faults.auditor import Auditor
from tests.faults.toxics import Toxics
from tests.world.environment import Environments, RunningEnvironment
from tests.world.files import CHECKOUT
from tests.world.wire import RedisWire

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
# Those that stand before processes of the environment itself.
OWN = ("CONSTITUTION_SERVICE_URL", "POLICY_ENGINE_1_URL", "ORCHESTRATOR_1_URL", "ORCHESTRATOR_2_URL")
RECONCILE = "constitution-reconcile/"


class ProxiedEnvironment(RunningEnvironment):
    """An environment whose processes reach everything through proxies.

    Args:
        ports: of the proxies.
        targets: folder where Prometheus looks for targets.
        more: as of every environment.
    """

    def __init__(self, directory: Path, servers: Mapping[str, str], *, ports: Mapping[str, int], targets: str,
                 **more: Any) -> None:  # fmt: skip
        self._ports = ports
        self._targets = targets
        super().__init__(directory, servers, **more)
        self.redis_wire = RedisWire(servers["REDIS_URL"], self.names.redis_floor())

    def _reached(self) -> tuple[dict[str, str], dict[str, str]]:
        """Each server at its proxy; reconciliation is on."""
        given = dict(self.direct)
        for proxy, settings in PROXIES.items():
            for name in settings:
                if name in given:
                    given[name] = given[name].replace(f":{_port(given[name])}", f":{self._ports[proxy]}", 1)
        own = {PROXIES[proxy][0]: f"http://127.0.0.1:{port}" for proxy, port in self._ports.items()
               if PROXIES[proxy][0] in OWN}  # fmt: skip
        return given, own | {"PROMETHEUS_TARGETS": self._targets}

    def _write_environment(self, urls: Mapping[str, str] | None = None) -> None:
        """Add a strategy that looks at Prometheus for a moment: traffic is not what these cells are about."""
        super()._write_environment(urls)
        file = self.files.environment_file
        strategy = {"watch_seconds": 2, "baseline_seconds": 30, "scrape_seconds": 1.0}
        actions = {"on_no_data": '"continue"', "on_cannot_tell": '"continue"', "on_anomaly": '"rollback"'}
        lines = (f"{name} = {value}" for name, value in (strategy | actions).items())
        file.write_text(file.read_text() + "\n".join(("[strategies.glance]", *lines)) + "\n")

    @cached_property
    def auditor(self) -> Auditor:
        """The environment's auditor, who remembers what it read before."""
        return Auditor(self.settings | self.direct, self.client)

    async def run_group(self) -> list[str]:
        """Open updates, rollbacks and guards; reconciliation comes and goes by its schedule."""
        return [run for run in await self.open_runs() if RECONCILE not in run]

    async def stop(self, *, keep_logs: bool = False) -> None:
        """Stop all of it, the wires too."""
        await super().stop(keep_logs=keep_logs)
        self.redis_wire.close()


class ProxiedEnvironments(Environments):
    """Servers, proxies, and the environment that runs now; to be entered.

    Args:
        directory: where everything is kept.
        say: called with news for people.
    """

    def __init__(self, directory: Path, say: Callable[[str], None]) -> None:
        self.directory = directory
        self.say = say
        self._proxies = StackDirectory(directory / "proxies")  # keeps the proxies' ports reserved
        self.ports = {name: self._proxies.port(name) for name in PROXIES}
        self.stack = Stack(
            directory / "servers",
            SERVERS,
            environment={},
            overrides={PROXIED: str(self.ports["kafka"])},
            progress=self._progress,
        )

    def _progress(self, news: Progress) -> None:
        if news.text == "running":
            self.say(f"  {news.server} runs after {news.seconds:.0f} s")

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.stack.start)
        settings = {name: value for name, value in self.stack.settings().items() if name != PROXIED}
        self._targets = settings["PROMETHEUS_TARGETS"]
        self._kafka = settings["KAFKA_PROXIED_UPSTREAM"]
        self.toxics = Toxics(settings["TOXIPROXY_URL"])
        client = await Client.connect(settings["TEMPORAL_ADDRESS"], data_converter=pydantic_data_converter)
        super().__init__(settings, client, self.directory / "environment")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()
        await self.toxics.aclose()
        await asyncio.to_thread(self.stack.erase)
        self._proxies.close()

    @property
    def current(self) -> ProxiedEnvironment | None:
        """The one that runs."""
        assert self._running is None or isinstance(self._running, ProxiedEnvironment)
        return self._running

    async def fresh(self) -> ProxiedEnvironment:
        """Leave the one that runs, and make another, where nothing has ever been live."""
        await self.leave()
        await self.running()
        assert self.current is not None
        return self.current

    def _make(self, folder: Path, servers: Mapping[str, str], *, channel: str, names: Names) -> ProxiedEnvironment:
        return ProxiedEnvironment(
            folder,
            servers,
            ports=self.ports,
            targets=self._targets,
            channel=channel,
            names=names,
            client=self.client,
            settings={},
        )

    async def _start(self, made: RunningEnvironment) -> None:
        assert isinstance(made, ProxiedEnvironment)
        upstreams = {proxy: f"127.0.0.1:{_port(made.direct[names[0]])}" for proxy, names in PROXIES.items()
                     if names[0] in made.direct}  # fmt: skip
        upstreams["kafka"] = self._kafka
        upstreams["valkey"] = f"127.0.0.1:{made.redis_wire.port}"
        upstreams["slack"] = f"127.0.0.1:{_port(made.slack_wire.url)}"
        upstreams["constitution-service"] = f"127.0.0.1:{_port(made.service_wire.url)}"
        for proxy, upstream in upstreams.items():
            await self.toxics.put(proxy, self.ports[proxy], upstream)
        await made.start()
        for target in TARGETS:
            if target in PROXIES:
                await self.toxics.put(target, self.ports[target], f"127.0.0.1:{made.port(target)}")

    async def leave(self, *, keep_logs: bool = False) -> None:
        """Stop the one that runs; its open runs are terminated, so that no worker ever takes them up again."""
        left = self.current
        if left is None:
            return
        await self.toxics.heal()
        await super().leave(keep_logs=keep_logs)
        async for schedule in await self.client.list_schedules():
            if schedule.id.startswith(left.names.namespace):
                await self.client.get_schedule_handle(schedule.id).delete()
        for workflow_id in await left.open_runs():
            try:
                await self.client.get_workflow_handle(workflow_id).terminate("the cell is over")
            except RPCError:
                continue  # it has closed meanwhile, with its parent

    def owner_of(self, process: str) -> Stack:
        """The stack in which a process runs."""
        if process in SERVERS:
            return self.stack
        assert self.current is not None
        return self.current.stack


def _port(address: str) -> int:
    """The port in a URL or host:port."""
    found = urlsplit(address if "://" in address else f"//{address}").port
    assert found is not None, address
    return found


def root() -> Path:
    """Where the matrix keeps its servers: one folder per process."""
    return CHECKOUT / "var" / "chaos" / f"run-{os.getpid()}"
