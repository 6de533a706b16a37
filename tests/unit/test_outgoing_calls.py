"""Every HTTP client of the product, in one table: which authorities it trusts, which host it asks, what it reveals."""

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from adapters.artifact_store import ArtifactStore
from adapters.environment_config import EnvironmentConfig
from adapters.event_log import KafkaEventLog
from adapters.kafka_settings import KafkaSettings
from adapters.prometheus import PrometheusMetrics
from adapters.redis_cache import ConstitutionCache
from adapters.redis_client import connect
from adapters.slack import SlackChannel
from adapters.targets import HttpTargets
from constitution.environment import Environment, Target
from constitution.errors import ConstitutionError
from constitution.names import Names
from constitution.policy.evaluation import EvaluationRequest
from constitution_client.backtest import _cases_of_prometheus
from constitution_client.service import ConstitutionServiceClient
from constitution_follow.fetch import ConstitutionSource
from constitution_follow.outgoing import http_client
from services.orchestrator.engines import Engines
from services.policy_engine.candidate import Candidates
from services.siem_forwarder.sinks.http import HttpSink
from signatures.trust_holder import TrustHolder
from tests.unit.keyring import DATA, keyring
from tests.world.authority import Authority

CHECKSUM = f"sha256:{'0' * 64}"
SHAPE = {"bake_s": 10.0, "scrape_interval_s": 1.0}


async def _follower(url: str) -> None:
    async with http_client() as http:
        await ConstitutionSource(http, base_url=url, ring="default").fetch(etag=None, min_generation=0)


async def _candidate(url: str) -> None:
    environment = Environment.parse('schema_version = 1\nenvironment = "development"\ngate = "gate"\n')
    config = EnvironmentConfig(environment=environment, holder=TrustHolder(keyring().trust), directory=DATA)
    async with http_client() as http:
        await Candidates(http, base_url=url, config=config).compiled(CHECKSUM)


async def _engines(url: str) -> None:
    async with http_client() as http:
        engines = Engines(http, urls=[url], key=keyring().worker, environment="development")
        request = EvaluationRequest(tenant="t", time=dt.datetime.now(dt.UTC))
        await engines.ask(request, authorization=None, refresh=False)


async def _sink(url: str) -> None:
    sink = HttpSink(url, token=None)
    try:
        await sink.deliver([{"message": "x"}])
    finally:
        await sink.close()


async def _target(url: str) -> None:
    targets = HttpTargets(keyring().worker, "development")
    try:
        await targets.policy(Target(id="engine-1", kind="policy_engine", ring="default", url=url), force=False)
    finally:
        await targets.aclose()


async def _prometheus(url: str) -> None:
    metrics = PrometheusMetrics(url)
    try:
        await metrics.instant("up")
    finally:
        metrics.close()


async def _client(url: str) -> None:
    async with ConstitutionServiceClient(url, None, "development") as service:
        await service.releases()


async def _backtest(url: str) -> None:
    await asyncio.to_thread(
        lambda: list(_cases_of_prometheus(url, query="up", moments=[1e9], shape=SHAPE, baseline_s=10.0))
    )


async def _slack(url: str) -> None:
    await SlackChannel("xoxb-0", f"{url}/").permalink("C0", "1.0")


CLIENTS: dict[str, Callable[[str], Awaitable[None]]] = {
    "policy engine, orchestrator: constitution-service": _follower,
    "policy engine: a candidate": _candidate,
    "orchestrator: engines": _engines,
    "SIEM forwarder: http": _sink,
    "worker: targets": _target,
    "worker: Prometheus": _prometheus,
    "worker and command line: constitution-service": _client,
    "command line: backtest": _backtest,
    "worker: Slack": _slack,
}


@asynccontextmanager
async def listener(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that keeps the first line of each request and answers 503."""
    lines: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            lines.append(await reader.readline())
            while (await reader.readline()).strip():
                pass
            writer.write(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], lines
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A company's own authority as a PEM file, and a server's context with a certificate that it gave out."""
    company = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(company.issue("server").both)
    return company.file, context


async def call(client: str, url: str) -> str:
    """Return what the call said; nobody here answers as it should."""
    with pytest.raises(ConstitutionError) as said:
        await CLIENTS[client](url)
    return said.value.diagnostics()


@pytest.mark.parametrize("client", CLIENTS)
async def test_trusts_the_machines_authorities_and_no_others(
    client: str, authority: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted, context = authority
    async with listener(context) as (port, lines):
        await call(client, f"https://127.0.0.1:{port}")
        assert lines == []  # not trusted: nothing was asked
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        await call(client, f"https://127.0.0.1:{port}")
        assert len(lines) >= 1


async def _kafka(port: int) -> None:
    settings = KafkaSettings(kafka_bootstrap_servers=f"127.0.0.1:{port}", kafka_security_protocol="SSL")
    await KafkaEventLog(settings.kafka_client(), Names(""), timeout=dt.timedelta(seconds=2)).require_usable()


async def _redis(port: int) -> None:
    client = connect(f"rediss://127.0.0.1:{port}/0")
    try:
        await ConstitutionCache(client, Names("")).ping()
    finally:
        await client.aclose()


async def _store(port: int) -> None:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in (
            ("AWS_ENDPOINT_URL", f"https://127.0.0.1:{port}"),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
            ("AWS_REGION", "r"),
        ):
            environment.setenv(name, value)
        await ArtifactStore("s3://bucket/store").read("x")


@pytest.mark.parametrize("server", [_kafka, _redis, _store], ids=["Kafka", "Redis", "artifact store"])
async def test_the_other_servers_are_trusted_by_the_same_authorities(
    server: Callable[[int], Awaitable[None]], authority: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted, context = authority
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(64))
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    try:
        for given in (False, True):
            if given:
                monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
            with pytest.raises(ConstitutionError):
                await server(port)
            assert any(received) == given
    finally:
        listening.close()


@pytest.mark.parametrize("client", CLIENTS)
async def test_asks_no_proxy_for_loopback(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with listener() as (proxy, asked), listener() as (port, lines):
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{proxy}")
        await call(client, f"http://127.0.0.1:{port}")
        assert asked == []
        assert len(lines) >= 1


async def test_the_store_asks_no_proxy_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with listener() as (proxy, asked), listener() as (port, lines):
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{proxy}")
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}"),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
            ("AWS_REGION", "r"),
        ):
            monkeypatch.setenv(name, value)
        with pytest.raises(ConstitutionError):
            await ArtifactStore("s3://bucket/store").read("x")
        assert asked == []
        assert len(lines) >= 1


@pytest.mark.parametrize("path", ["", "/t0ken/in?key=t0ken"])
@pytest.mark.parametrize("client", CLIENTS)
async def test_says_the_host_only(client: str, path: str) -> None:
    async with listener() as (port, _):
        pass
    async with listener() as (refusing, _):
        for where in (port, refusing):
            said = await call(client, f"http://anna:pa55word@127.0.0.1:{where}{path}")
            assert not any(secret in said for secret in ("anna", "pa55word", "t0ken")), said
