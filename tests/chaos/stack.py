"""One scratch environment: keys, database, constitution-service and two policy engines that obey the draft.

Nothing here is live or outlives the run. Keys and trust policy come from the same ceremony as production's, the
environment's name is the draft's own, and the draft's exact bytes are signed by the scratch maintainer. The releases
are put into the scratch database directly, as a restored backup would: nothing was approved here and nothing claims
so; the only signature that matters to an engine, the release statement's, is made with the scratch service key.

Engine ``a`` goes on by the last good document when it hears nothing, engine ``b`` denies everything then.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path

import asyncpg
import redis
from chaos import servers
from chaos.connection import FAILURES, call
from chaos.history import Connection, ReleaseRow, insert_artifact, insert_release
from chaos.proxy import Proxy
from chaos.signing import Signing
from policy.drafts import Draft
from pydantic import SecretStr

from constitution.policy.consumer_api import PolicyStatus
from constitution.policy.document import parse
from constitution.release import CurrentConstitution
from services.constitution_service.migrate import MigrationSettings, migrate

PATIENCE = 20.0  # seconds for anything that happens in well under one on a free machine
LOOK_SECONDS = 0.02  # between two looks while waiting
POLL_SECONDS = 0.05
STALE_SECONDS = 1.0
ENGINES = ("a", "b")
PRODUCT = str(Path(parse.__code__.co_filename).resolve().parents[1])  # where the services are imported from


def wait_until(done: Callable[[], bool], what: str, *, seconds: float = PATIENCE) -> None:
    """Wait until ``done()``; refused connections count as not yet.

    Raises:
        AssertionError: it did not happen in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            if done():
                return
        except FAILURES:
            pass
        assert time.monotonic() < deadline, f"did not happen within {seconds:g} s: {what}"
        time.sleep(LOOK_SECONDS)


@dataclass
class Service:
    """One process under test and how to start it again."""

    module: str
    port: int
    environment: dict[str, str]
    pid: int = 0

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Stack:
    """The scratch environment. Use `running`."""

    draft: Draft
    folder: Path
    namespace: str = field(default_factory=lambda: f"gate-{secrets.token_hex(6)}")
    services: dict[str, Service] = field(default_factory=dict)
    generation: int = 0

    @property
    def service(self) -> Service:
        """Return constitution-service."""
        return self.services["service"]

    def engine(self, name: str) -> str:
        """Return the address of a policy engine."""
        return self.services[name].url

    def start(self, name: str) -> None:
        """Start a service again, or for the first time; do not wait for it."""
        service = self.services[name]
        order = {"module": service.module, "environment": service.environment, "log": str(self.folder / f"{name}.log")}
        assert self.nursery.stdin is not None
        assert self.nursery.stdout is not None
        self.nursery.stdin.write(json.dumps(order) + "\n")
        self.nursery.stdin.flush()
        line = self.nursery.stdout.readline()
        assert line, f"the services cannot be imported: {(self.folder / 'nursery.log').read_text()[-800:]}"
        service.pid = json.loads(line)["pid"]

    def kill(self, name: str) -> None:
        """SIGKILL a service and wait until it is gone."""
        pid = self.services[name].pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not _exists(pid), f"{name} is gone")

    def log(self, name: str) -> str:
        """Return the last lines of a service's log."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-1500:] if path.exists() else "no log"

    def __post_init__(self) -> None:
        # First of all: importing the services takes longest, and happens while the servers start.
        with (self.folder / "nursery.log").open("wb") as log:
            self.nursery = subprocess.Popen(  # noqa: S603 - our own script
                [sys.executable, "-P", str(Path(__file__).with_name("nursery.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": PRODUCT},
            )
        self.kafka = socket.socket()  # bound and never listening: a broker that refuses, and stays away
        self.kafka.bind(("127.0.0.1", 0))

    def prepare(self) -> None:
        """Make keys, database and releases, start everything, and wait until both engines obey the draft."""
        self._make_trust()
        # From the main thread: the kernel's death signal follows the thread that started a process.
        self.scratch = servers.start(self.folder)
        asyncio.run(self._make_database())
        if self.draft.previous is not None:
            self.store(self.draft.previous)
            self.release(self.draft.previous, None)
        self.store(self.draft.data)
        self._describe()
        self.start("service")
        for name in ENGINES:
            self.start(name)
        wait_until(self._serving, "constitution-service answers")

    def _make_trust(self) -> None:
        """Make keys and trust policy by the ceremony, and the environment file that names them."""
        environment = self.draft.document.environment
        self.signing = Signing(self.folder, environment)
        (self.folder / "environment.toml").write_text(
            f'schema_version = 1\nenvironment = "{environment}"\ngate = "gate"\n', encoding="utf-8"
        )

    def _describe(self) -> None:
        """Say how each process is started."""
        common = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": PRODUCT,
            "HOST": "127.0.0.1",
            "NAMESPACE": self.namespace,
            "ENVIRONMENT_FILE": str(self.folder / "environment.toml"),
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self.kafka.getsockname()[1]}",
        }
        (self.folder / "spool").mkdir(mode=0o700)
        (self.folder / "artifacts").mkdir(mode=0o700)
        port = servers.free_port()
        self.services["service"] = Service(
            "services.constitution_service",
            port,
            common
            | {
                "PORT": str(port),
                "DATABASE_URL": self.database_url,
                "REDIS_URL": self.scratch.redis_url,
                "ARTIFACT_STORE_URL": (self.folder / "artifacts").as_uri(),
                "STATEMENT_KEY_FILE": str(self.signing.statement_key),
                "SPOOL_DIRECTORY": str(self.folder / "spool"),
            },
        )
        self.proxy = Proxy(("127.0.0.1", port))
        for name, action in zip(ENGINES, ("enforce", "deny"), strict=True):
            port = servers.free_port()
            self.services[name] = Service(
                "services.policy_engine",
                port,
                common
                | {
                    "PORT": str(port),
                    "TARGET_ID": f"gate-{name}",
                    "CONSTITUTION_SERVICE_URL": self.proxy.url,
                    "POLL_SECONDS": str(POLL_SECONDS),
                    "MAX_STALENESS_SECONDS": str(STALE_SECONDS),
                    "STALENESS_ACTION": action,
                },
            )

    async def _make_database(self) -> None:
        """Make a database of this run's own, with the shipped migrations."""
        name = self.namespace.replace("-", "_")
        self.database_url = servers.with_database(self.scratch.database_url, name)
        connection = await connected(self.scratch.database_url)
        try:
            for role in ("constitution_service", "constitution_reader"):  # the migrations grant to them
                if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role):
                    await connection.execute(f"CREATE ROLE {role} NOLOGIN")
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()
        settings = MigrationSettings(database_migration_url=SecretStr(self.database_url))
        assert migrate(settings) == 0, "the scratch database cannot be migrated"

    def _forget_keys(self) -> None:
        with redis.Redis.from_url(self.scratch.redis_url) as cache:
            for key in cache.scan_iter(f"{self.namespace}:*"):
                cache.delete(key)

    async def _drop_database(self) -> None:
        connection = await connected(self.scratch.database_url)
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS {self.namespace.replace('-', '_')} WITH (FORCE)")
        finally:
            await connection.close()

    def store(self, document: bytes) -> None:
        """Put ``document`` and its signature where `constitution-service` finds artifacts."""
        asyncio.run(self._change(partial(insert_artifact, signing=self.signing, document=document)))

    def release(self, document: bytes, previous: bytes | None) -> None:
        """Put the stored ``document`` live as the next generation, by one transaction in the scratch database."""
        self.generation += 1
        row = ReleaseRow(document, previous, self.generation, datetime.now(UTC))
        asyncio.run(self._change(partial(insert_release, signing=self.signing, row=row)))

    async def _change(self, change: Callable[[Connection], Awaitable[None]]) -> None:
        connection = await connected(self.database_url)
        try:
            async with connection.transaction():
                await change(connection)
        finally:
            await connection.close()

    def _serving(self) -> bool:
        return call(self.service.url, "/healthz").status == HTTPStatus.OK

    def status(self, name: str) -> PolicyStatus:
        """Return what an engine says it obeys."""
        return PolicyStatus.model_validate_json(call(self.engine(name), "/v1/policy").body)

    def obeys(self, name: str) -> bool:
        """Tell whether an engine obeys the draft, and has just heard that it is current."""
        status = self.status(name)
        return (status.checksum, status.state) == (self.draft.checksum, "live")

    def go_live(self) -> None:
        """Release the draft and wait until both engines obey it."""
        self.release(self.draft.data, self.draft.previous)
        self.recovered()

    def recovered(self) -> None:
        """Wait until service and engines are well again."""
        for name in ENGINES:
            wait_until(partial(self.obeys, name), f"engine {name} obeys the draft\n{self.log(name)}")

    def current(self) -> bytes:
        """Return what constitution-service answers now, unverified."""
        return call(self.service.url, "/v1/constitution").body

    def served(self) -> bytes:
        """Return the document that constitution-service serves."""
        document = CurrentConstitution.model_validate_json(self.current()).document
        assert document is not None, "constitution-service serves no constitution"
        return document.encode()

    def close(self) -> None:
        """End every process and leave nothing."""
        if hasattr(self, "proxy"):
            self.proxy.close()
        self.nursery.communicate(timeout=60)  # closes its stdin, upon which it ends, and both pipes
        self.kafka.close()
        if hasattr(self, "scratch"):
            if os.environ.get("GATE_DATABASE_URL"):
                asyncio.run(self._drop_database())
            if os.environ.get("GATE_REDIS_URL"):
                self._forget_keys()
            self.scratch.close()


async def connected(url: str) -> Connection:
    """Connect as soon as the server, which may just be starting, lets us."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await asyncpg.connect(url, timeout=5)
        except (OSError, asyncpg.CannotConnectNowError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def running(draft: Draft) -> Iterator[Stack]:
    """Serve ``draft`` in a scratch environment for as long as the block lasts."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=os.environ.get("GATE_SCRATCH")))
    folder.chmod(0o711)
    stack = Stack(draft, folder)
    try:
        stack.prepare()
        yield stack
    finally:
        stack.close()
        shutil.rmtree(folder, ignore_errors=True)
