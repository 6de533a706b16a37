"""Our own services and the worker, as servers of the stack.

Each gets the settings that it needs and no others: a service's password is in no other service's environment.
"""

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from deploy.embedded import development
from deploy.embedded.external import OF_OUR_PROCESSES, REPLACED_BY
from deploy.embedded.server import Command, NotAnswering, Server, ServerError, run_tool
from deploy.embedded.stack_directory import CHECKOUT, StackDirectory, write_private

KAFKA = REPLACED_BY["kafka"]
TEMPORAL = tuple(name for name in REPLACED_BY["temporal"] if name != "TEMPORAL_UI_URL")  # which the worker alone reads
S3 = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ALLOW_HTTP")


class Service(Server):
    """One of our HTTP services: a Python module with `/readyz` and `/metrics`."""

    module: ClassVar[str]
    # Prometheus's job of it.
    job: ClassVar[str]
    # Settings of the stack that it is given; those that the stack does not have are left out.
    needs: ClassVar[tuple[str, ...]] = ()
    stop_grace = timedelta(seconds=15)  # its own drain takes up to 10 s

    def url(self) -> str:
        """Its HTTP address."""
        return f"http://127.0.0.1:{self.directory.port(self.name)}"

    def own_settings(self) -> dict[str, str]:
        """Settings that only it has."""
        return {}

    def command(self) -> Command:
        """The module, with its settings in the environment."""
        given = {
            name: self.directory.settings[name]
            for name in (*OF_OUR_PROCESSES, *self.needs)
            if name in self.directory.settings
        }
        own = {
            "HOST": "127.0.0.1",
            "PORT": str(self.directory.port(self.name)),
            "ENVIRONMENT_FILE": str(development.environment_file(self.directory)),
            "PYTHONUNBUFFERED": "1",
        }
        environment = given | own | self.own_settings()
        return Command(argv=(sys.executable, "-m", self.module), environment=environment, cwd=CHECKOUT)

    async def check(self) -> None:
        """Ask whether it is ready, which it is when what it needs answers it."""
        import httpx  # noqa: PLC0415 - not needed by a stack of servers alone

        from deploy.embedded.loopback import loopback  # noqa: PLC0415 - not needed by a stack of servers alone

        async with loopback(5) as client:
            answer = await client.get(f"{self.url()}/readyz")
        if answer.status_code != httpx.codes.OK:
            raise NotAnswering(f"/readyz answers {answer.status_code}: {answer.text[:300]}")

    async def settle(self) -> None:
        """Have Prometheus scrape it."""
        self.announce(f"127.0.0.1:{self.directory.port(self.name)}")

    def announce(self, address: str) -> None:
        """Write the file by which Prometheus finds `address`."""
        targets = self.directory.settings.get("PROMETHEUS_TARGETS")
        if targets is None:
            return  # the user's own Prometheus, or none
        entry = {"targets": [address], "labels": {"job": self.job, "target": self.name}}
        write_private(Path(targets) / f"{self.name}.json", json.dumps([entry]))

    def settings(self) -> dict[str, str]:
        """Its address."""
        return {setting_of(self.name): self.url()}

    def urls(self) -> dict[str, str]:
        """Its address."""
        return {self.name: self.url()}


async def _require_schema(url: str) -> None:
    """Refuse a database of a person's own that nobody has migrated; one that is away may come.

    Raises:
        ServerError: it has no table of ours; with the command that makes them.
    """
    import asyncpg  # noqa: PLC0415 - not needed where the stack has a database of its own

    from adapters.postgres import MIGRATE  # noqa: PLC0415 - as above

    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return
    try:
        known = await connection.fetchval("SELECT to_regclass('releases') IS NOT NULL")
    finally:
        await connection.close()
    if not known:
        raise ServerError(f"the database that DATABASE_URL names has no schema of ours: run {MIGRATE}")


class ConstitutionService(Service):
    """Also makes the development environment and migrates the database, before it starts."""

    name = "constitution-service"
    job = "constitution-service"
    module = "services.constitution_service"
    after = ("postgres", "valkey", "kafka")
    needs = ("DATABASE_URL", "REDIS_URL", *KAFKA, "ARTIFACT_STORE_URL", *S3, "LEASE_SECONDS")

    async def prepare(self) -> None:
        """Make the development environment."""
        urls = {name: self.directory.settings.get(setting_of(name), _url(self.directory, name)) for name in TARGETS}
        development.make(self.directory, {name: (kind, urls[name]) for name, kind in TARGETS.items()})

    async def before_start(self) -> None:
        """Bring the database to the newest schema."""
        url = self.directory.settings.get("DATABASE_MIGRATION_URL")
        if url is None:
            self.say("the database is yours and DATABASE_MIGRATION_URL is not given: not migrated")
            await _require_schema(self.directory.settings["DATABASE_URL"])
            return
        migrate = (sys.executable, "-m", "services.constitution_service.migrate")
        await run_tool(self.directory, Command(argv=migrate, environment={"DATABASE_MIGRATION_URL": url}, cwd=CHECKOUT))

    def own_settings(self) -> dict[str, str]:
        """Its signing key, its spool, and the local artifact store where no other one is given."""
        spool = self.directory.data(self.name) / "spool"
        spool.mkdir(mode=0o700, exist_ok=True)
        return {
            "STATEMENT_KEY_FILE": str(development.key_file(self.directory, "constitution-service")),
            "SPOOL_DIRECTORY": str(spool),
        }

    def settings(self) -> dict[str, str]:
        """What its clients need: the operator's key, the environment, the trust policy."""
        artifacts = self.directory.path / "artifacts"
        artifacts.mkdir(mode=0o700, exist_ok=True)
        home = development.environment_directory(self.directory)
        return super().settings() | {
            "ARTIFACT_STORE_URL": artifacts.as_uri(),
            "CLIENT_KEY_FILE": str(development.key_file(self.directory, "operator")),
            "ENVIRONMENT_FILE": str(development.environment_file(self.directory)),
            "TRUST_FILE": str(home / "trust" / "trust.toml"),
            "KEYS_DIRECTORY": str(home / "keys"),
            "ARCHIVE_REPOSITORY": str(development.archive_repository(self.directory)),
        }


class Follower(Service):
    """A consumer that obeys the current constitution."""

    after = ("constitution-service",)
    needs = ("CONSTITUTION_SERVICE_URL", *KAFKA)

    def own_settings(self) -> dict[str, str]:
        """Which target it is."""
        return {"TARGET_ID": self.name}


class PolicyEngine1(Follower):
    """A policy engine."""

    name = "policy-engine-1"
    job = "policy-engine"
    module = "services.policy_engine"


class PolicyEngine2(PolicyEngine1):
    """Another replica."""

    name = "policy-engine-2"


class Orchestrator1(Follower):
    """An orchestrator that asks the first policy engine, and the second where that does not answer."""

    name = "orchestrator-1"
    job = "orchestrator"
    module = "services.orchestrator"
    engines: ClassVar[tuple[str, ...]] = ("policy-engine-1", "policy-engine-2")

    def own_settings(self) -> dict[str, str]:
        """Its engines, and the key by which it has them refresh."""
        return super().own_settings() | {
            "POLICY_ENGINE_URL": ",".join(_url(self.directory, engine) for engine in self.engines),
            "CLIENT_KEY_FILE": str(development.key_file(self.directory, "target")),
        }


class Orchestrator2(Orchestrator1):
    """Another replica, with the engines the other way round."""

    name = "orchestrator-2"
    engines = ("policy-engine-2", "policy-engine-1")


class SiemForwarder(Service):
    """Takes both topics to the SIEM; here, a file of JSON lines."""

    name = "siem-forwarder"
    job = "siem-forwarder"
    module = "services.siem_forwarder"
    after = ("constitution-service",)
    needs = (*KAFKA, "SIEM_SINK", "SIEM_SYSLOG_ADDRESS", "SIEM_HTTP_URL", "SIEM_HTTP_TOKEN")

    def own_settings(self) -> dict[str, str]:
        """The file, unless another sink is given."""
        return {} if "SIEM_SINK" in self.directory.settings else {"SIEM_SINK": "ndjson", "SIEM_FILE": self._file()}

    def _file(self) -> str:
        directory = self.directory.path / "siem"
        directory.mkdir(mode=0o700, exist_ok=True)
        return str(directory / "events.ndjson")

    def settings(self) -> dict[str, str]:
        """Its address and its file."""
        return super().settings() | {"SIEM_FILE": self._file()}


class Worker(Service):
    """The Temporal worker."""

    name = "worker"
    job = "worker"
    module = "worker"
    after = ("temporal", "constitution-service")
    needs: ClassVar[tuple[str, ...]] = (
        *TEMPORAL,
        *KAFKA,
        "DATABASE_READER_URL",
        "REDIS_URL",
        "SLACK_BOT_TOKEN",
        "SLACK_API_URL",
        "CONSTITUTION_SERVICE_URL",
        "ARCHIVE_REPOSITORY",
        "TEMPORAL_UI_URL",
        "RECONCILE_SECONDS",
        "RECONCILE_CLOSED_SECONDS",
        "TEMPORAL_DEPLOYMENT_NAME",
        "TEMPORAL_WORKER_BUILD_ID",
        "DRAIN_SECONDS",
    )
    stop_grace = timedelta(seconds=30)  # it finishes what it can; the rest is another worker's

    def command(self) -> Command:
        """A script and not a module of a package."""
        argv = (sys.executable, str(CHECKOUT / f"{self.module}.py"))
        return Command(argv=argv, environment=super().command().environment, cwd=CHECKOUT)

    def own_settings(self) -> dict[str, str]:
        """Its key, its scratch, and the port of its metrics."""
        evidence = self.directory.data(self.name) / "evidence"
        evidence.mkdir(mode=0o700, exist_ok=True)
        return {
            "CLIENT_KEY_FILE": str(development.key_file(self.directory, "worker")),
            "EVIDENCE_DIRECTORY": str(evidence),
            "METRICS_PORT": str(self.directory.port(self.name)),
        }

    async def check(self) -> None:
        """Read its metrics; they appear when its pollers run."""
        from deploy.embedded.loopback import loopback  # noqa: PLC0415 - not needed by a stack of servers alone

        async with loopback(5) as client:
            (await client.get(f"{self.url()}/metrics")).raise_for_status()

    def settings(self) -> dict[str, str]:
        """The address of its metrics."""
        return {"WORKER_METRICS_URL": f"{self.url()}/metrics"}


class Assessor(Worker):
    """The worker that runs gate, sync and watch, and signs what it saw."""

    name = "assessor"
    job = "assessor"
    module = "assessor"
    needs: ClassVar[tuple[str, ...]] = (
        *TEMPORAL,
        *REPLACED_BY["prometheus"],
        "CONSTITUTION_SERVICE_URL",
        "DRAIN_SECONDS",
    )

    def own_settings(self) -> dict[str, str]:
        """Its two keys: one for its service tokens, one that signs."""
        return super().own_settings() | {
            "CLIENT_KEY_FILE": str(development.key_file(self.directory, "assessor-client")),
            "ASSESSOR_KEY_FILE": str(development.key_file(self.directory, "assessor")),
        }

    def settings(self) -> dict[str, str]:
        """The address of its metrics."""
        return {"ASSESSOR_METRICS_URL": f"{self.url()}/metrics"}


TARGETS = {
    "policy-engine-1": "policy_engine",
    "policy-engine-2": "policy_engine",
    "orchestrator-1": "orchestrator",
    "orchestrator-2": "orchestrator",
}

SERVICES: tuple[type[Server], ...] = (
    ConstitutionService,
    PolicyEngine1,
    PolicyEngine2,
    Orchestrator1,
    Orchestrator2,
    SiemForwarder,
    Assessor,
    Worker,
)


def setting_of(name: str) -> str:
    """Name of the setting that holds a service's address."""
    return f"{name.upper().replace('-', '_')}_URL"


def _url(directory: StackDirectory, name: str) -> str:
    return f"http://127.0.0.1:{directory.port(name)}"
