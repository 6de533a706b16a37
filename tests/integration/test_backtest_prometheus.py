"""``constitution watch backtest --query`` on a real Prometheus that scraped a real exporter once a second."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Metric, start_http_server

from constitution.errors import UnavailableError
from constitution_client.backtest import backtest
from constitution_client.settings import UsageError
from tests.helpers import eventually
from tests.ports import free_port
from tests.resources import Prometheus

BASELINE_S, BAKE_S = 20, 8


def ask(**flags: Any) -> None:
    """Run the verb as its command line would, with its defaults."""
    defaults: dict[str, Any] = {
        "file": None,
        "start": None,
        "end": None,
        "publish": None,
        "bake": float(BAKE_S),
        "baseline": float(BASELINE_S),
        "scrape_interval": 1.0,
        "measure": None,
        "alpha": 0.01,
        "delta": 0.1,
        "min_rate": 0.0,
        "direction": "both",
        "explain": True,
    }
    backtest(**(defaults | flags))


class Engine:
    """Counts two hundred evaluations a second; a fifth are refused, and seven tenths after ``tighten``."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._counter = Counter("backtest_evaluations_total", "Decisions.", ["decision", "run"], registry=registry)
        self.run = uuid4().hex[:8]
        self.port = free_port()
        self._server, self._thread = start_http_server(self.port, addr="127.0.0.1", registry=registry)
        registry.register(self)
        self._refused_of_ten = 2
        self._asked, self._tightened = threading.Event(), threading.Event()
        self._over = threading.Event()
        self._worker = threading.Thread(target=self._count)
        self._worker.start()

    def tighten(self) -> float:
        """Refuse more from the next scrape on, so that no interval between two holds both; return when that was."""
        self._asked.set()
        assert self._tightened.wait(30), "nobody scrapes the engine"
        return self._changed

    def collect(self) -> Iterator[Metric]:
        """Called at each scrape, after the counter was read."""
        if self._asked.is_set() and not self._tightened.is_set():
            self._refused_of_ten, self._changed = 7, time.time()
            self._tightened.set()
        yield from ()

    def _count(self) -> None:
        while not self._over.wait(0.05):
            self._counter.labels("deny", self.run).inc(self._refused_of_ten)
            self._counter.labels("allow", self.run).inc(10 - self._refused_of_ten)

    def stop(self) -> None:
        self._over.set()
        self._worker.join()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def engine(prometheus: Prometheus) -> Iterator[Engine]:
    engine = Engine()
    prometheus.scrape(f"127.0.0.1:{engine.port}", job="backtest")
    yield engine
    engine.stop()


def scraped(prometheus: Prometheus, engine: Engine, since: float) -> Callable[[], Any]:
    """A condition: how many samples later than ``since`` Prometheus has."""

    async def newest() -> float:
        query = f'backtest_evaluations_total{{run="{engine.run}",decision="deny"}}[5m]'
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{prometheus.url}/api/v1/query", params={"query": query})
        found = answer.json()["data"]["result"]
        return sum(t > since for t, _ in found[0]["values"]) if found else 0

    return newest


@pytest.mark.slow
async def test_a_release_of_the_past_is_judged_from_raw_samples(
    prometheus: Prometheus, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    async def seen(since: float, samples: int) -> None:
        newest = scraped(prometheus, engine, since)

        async def enough() -> bool:
            return bool(await newest() >= samples)

        await eventually(enough, timedelta(seconds=samples + 30))

    await seen(0.0, BASELINE_S + BAKE_S + 2)
    quiet = time.time() - BAKE_S - 2
    changed = await asyncio.to_thread(engine.tighten)
    await seen(changed, BAKE_S + 1)
    query = f'backtest_evaluations_total{{run="{engine.run}"}}'
    ask(query=query, prometheus=prometheus.url, publish=[f"{quiet:.3f}", f"{changed:.3f}"])
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["verdict"] == "ok", first
    assert second["verdict"] == "anomaly", second
    assert changed < second["at"] <= changed + 4
    assert 2 < second["ratio"] < 5


async def test_what_is_no_selector_of_a_counter_is_wrong_usage(prometheus: Prometheus) -> None:
    for query in ("1 + 1", "up[5m]", "{"):
        with pytest.raises(UsageError, match="plain selector"):
            ask(query=query, prometheus=prometheus.url, publish=["2026-01-01T00:00:00Z"])


async def test_a_prometheus_that_does_not_answer_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match="did not answer"):
        ask(query="up", prometheus=f"http://127.0.0.1:{free_port()}", publish=["1700000000"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"prometheus": None}, "--prometheus"),
        ({"publish": None}, "--from and --to"),
        ({"publish": None, "start": "1700000000", "end": "1700000001"}, "no room"),
        ({"publish": ["yesterday"]}, "neither unix seconds nor ISO"),
        ({"publish": ["nan"]}, "between 1970 and 2100"),
        ({"measure": "speed"}, "do not make a case"),
        ({"bake": -1.0}, "do not make a case"),
    ],
)
async def test_missing_or_senseless_flags_are_named(flags: dict[str, Any], message: str) -> None:
    defaults: dict[str, Any] = {"query": "up", "prometheus": "http://127.0.0.1:9", "publish": ["1700000000"]}
    with pytest.raises(UsageError, match=message):
        ask(**(defaults | flags))
