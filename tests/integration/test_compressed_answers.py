"""A hostile server's small answer that unpacks to a large one: it is not asked for, and not unpacked."""

import gzip
import threading
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from adapters.targets import HttpTargets
from constitution.environment import Target
from constitution.errors import UnavailableError
from constitution.policy.evaluation import EvaluationRequest
from constitution_client.backtest import backtest
from constitution_client.service import ConstitutionServiceClient
from services.orchestrator.engines import Engines
from signatures.tokens import ClientKey
from tests.world.files import ENVIRONMENT

UNPACKED = 64 * 1024 * 1024  # bytes
BOUND = 8 * 1024 * 1024  # bytes that reading an answer may take, with everything around it


class Hostile:
    """A real HTTP server that answers everything with a compressed answer, and remembers what it was asked for."""

    def __init__(self) -> None:
        hostile = self
        self.accepted: list[str | None] = []
        self.bomb = gzip.compress(b" " * UNPACKED)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hostile.accepted.append(self.headers.get("Accept-Encoding"))
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(hostile.bomb)))
                self.end_headers()
                self.wfile.write(hostile.bomb)

            do_POST = do_GET  # noqa: N815 - the base class's names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Write no access log."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    made = Hostile()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def peak(hostile: Hostile) -> Iterator[None]:  # noqa: ARG001 - made before anything is measured
    """Fail the test if Python's memory grew beyond the bound at any moment of it."""
    tracemalloc.start()
    try:
        yield
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < BOUND, f"{taken} bytes"


@pytest.mark.usefixtures("peak")
async def test_a_target_cannot_fill_the_worker_s_memory(hostile: Hostile) -> None:
    targets = HttpTargets(ClientKey.generate("worker"), ENVIRONMENT)
    target = Target(id="engine-1", kind="policy_engine", url=hostile.url)
    try:
        for force in (False, True):
            with pytest.raises(UnavailableError, match="gzip"):
                await targets.policy(target, force=force)
    finally:
        await targets.aclose()
    assert hostile.accepted == ["identity", "identity"]


@pytest.mark.usefixtures("peak")
async def test_whoever_answers_as_constitution_service_cannot_fill_the_worker_s_memory(hostile: Hostile) -> None:
    async with ConstitutionServiceClient(hostile.url, None, ENVIRONMENT) as service:
        with pytest.raises(UnavailableError, match="gzip"):
            await service.lease()
    assert set(hostile.accepted) == {"identity"}


@pytest.mark.usefixtures("peak")
async def test_a_policy_engine_cannot_fill_the_orchestrator_s_memory(hostile: Hostile) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        key = ClientKey.generate("target")
        engines = Engines(client, urls=[hostile.url], key=key, environment=ENVIRONMENT)
        question = EvaluationRequest(tenant="global", time=datetime.now(UTC))
        with pytest.raises(UnavailableError, match="gzip"):
            await engines.ask(question, authorization=None, refresh=False)
    assert set(hostile.accepted) == {"identity"}


@pytest.mark.usefixtures("peak")
def test_whoever_answers_as_prometheus_cannot_fill_the_memory_of_a_backtest(hostile: Hostile) -> None:
    with pytest.raises(UnavailableError, match="gzip"):
        backtest(file=None, query="up", start=None, end=None, prometheus=hostile.url, publish=["1700000000"])
    assert hostile.accepted == ["identity"]
