"""A watch of 24 hours: scrapes that promtool filled into a real Prometheus, and at the end some that it makes itself.

17,280 scrapes in all; the last minute is lived through, or as many seconds as WATCH_DAY_LIVE_SECONDS says. The traffic
of the day is made by a seeded generator: four engines, a fifth of all evaluations refused, the load going up and down
by a third in the course of the day.
"""

import asyncio
import gc
import json
import logging
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import psutil
import pytest

from activities.watch.live import LiveWatch
from activities.watch.plan import plan
from activities.watch.query import history_seconds, selector
from activities.watch.watch import WatchReport, WatchTask
from adapters.prometheus import PrometheusMetrics
from constitution.environment import Strategy
from constitution.release import Verdict
from constitution.watch.quantities import QUANTITIES
from deploy.embedded.prometheus import programs
from deploy.embedded.stack import Stack
from tests.helpers import eventually
from tests.integration.activity_support import now
from tests.integration.test_watch_faults import Fleet
from tests.ports import free_port
from tests.resources import Prometheus
from tests.world.author import Author
from tests.world.files import CHECKOUT, ENVIRONMENT, EnvironmentFiles
from tests.world.processes import Process

if TYPE_CHECKING:
    from temporalio.client import Client

LOG = logging.getLogger(__name__)  # --log-cli-level=INFO shows the figures
LIVE = int(os.environ.get("WATCH_DAY_LIVE_SECONDS", "60"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500 + LIVE)]

DAY = 86_400
SCRAPE = 5.0
HISTORY = 6 * 3600
OVERLAP = 120.0
ENGINES = 4
ALLOWED, DENIED = 16.0, 4.0  # per second and engine
EVENTS = 2000
"""History events that a day's watch may take at most; Temporal itself warns at 10,000."""
GROWTH = 32 * 2**20
"""Bytes by which the memory may grow over the day."""
EVIDENCE = 96 * 2**20
"""Bytes that a worker may take once, at the end, to read the day again and store it."""


@dataclass(frozen=True)
class Day:
    """A Prometheus that holds a day of samples and scrapes the same engines since."""

    url: str
    engines: tuple[str, ...]
    published: datetime

    def strategy(self) -> Strategy:
        return Strategy(watch_seconds=DAY, baseline_seconds=3600, scrape_seconds=SCRAPE, measure="share", min_rate=0.01)


def open_metrics(engines: dict[str, str], address: str, first: float, last: float) -> Iterator[str]:
    """Lines of a day's counters (OpenMetrics 1.0): each engine scraped every 5 s at an instant of its own."""
    dice = np.random.default_rng(20261122)
    yield "# TYPE policy_engine_evaluations counter"
    for name in engines.values():
        at = np.arange(first + dice.uniform(0, SCRAPE), last, SCRAPE)
        load = 1 + np.sin(2 * np.pi * (at - first) / DAY) / 3
        for decision, rate in (("allow", ALLOWED), ("deny", DENIED)):
            labels = f'decision="{decision}",severity="low",tenant="global",target="{name}"'
            scraped = f'job="policy-engine",instance="{address}"'
            for t, value in zip(at, np.cumsum(dice.poisson(rate * SCRAPE * load)), strict=True):
                yield f"policy_engine_evaluations_total{{{labels},{scraped}}} {value} {t:.3f}"
    yield "# EOF"


@pytest.fixture
async def day(tmp_path: Path) -> AsyncIterator[Day]:
    """Fill a Prometheus of its own, start it, and go on scraping."""
    stack = Stack(tmp_path / "stack", ["prometheus"], environment={})
    directory = tmp_path / "engines"
    directory.mkdir()
    port = free_port()
    address = f"127.0.0.1:{port}"
    exporter = Process(
        [str(CHECKOUT / "tests" / "integration" / "exporter.py"), str(port), str(directory)], {}, tmp_path / "log"
    )
    tools = await asyncio.to_thread(programs, tmp_path / "package.log", lambda _: None, dict(os.environ))
    names = {f"engine-{i}": f"e{uuid4().hex[:10]}" for i in range(ENGINES)}
    begun = time.time()
    samples = tmp_path / "samples.txt"
    first = begun - DAY - HISTORY + LIVE
    with samples.open("w") as file:
        file.writelines(line + "\n" for line in open_metrics(names, address, first, begun))
    blocks = stack.directory / "prometheus" / "data"
    blocks.mkdir(parents=True, mode=0o700)
    made = await asyncio.to_thread(
        subprocess.run,
        [str(tools / "promtool"), "tsdb", "create-blocks-from", "openmetrics", "--quiet", str(samples), str(blocks)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    samples.unlink()
    try:
        exporter.start()
        await asyncio.to_thread(stack.start)
        settings = stack.settings()
        prometheus = Prometheus(settings["PROMETHEUS_URL"], Path(settings["PROMETHEUS_TARGETS"]))
        fleet = Fleet(directory, address, prometheus, names)
        for scenario, name in names.items():
            fleet.tell(scenario, allow=ALLOWED, deny=DENIED)
            prometheus.scrape(address, job="policy-engine", __metrics_path__=f"/{name}", target=name)
        published = datetime.fromtimestamp(begun - DAY + LIVE, UTC)
        yield Day(prometheus.url, tuple(names.values()), published)
    finally:
        exporter.kill()
        await asyncio.to_thread(stack.erase)


@dataclass
class Followed:
    """What following the day round by round cost."""

    live: LiveWatch
    growth: int  # bytes of memory since the thousandth round
    update_ms: tuple[float, float]  # CPU time of one round without asking: median, 99th percentile

    def said(self) -> tuple[float, ...]:
        return (self.growth / 2**20, *self.update_ms)


async def follow(day: Day, metrics: PrometheusMetrics) -> Followed:
    """Judge the day as the activity does, scrape by scrape, without its waiting: by its own code."""
    strategy = day.strategy()
    quantity = QUANTITIES["deny_share"]
    selected = selector([], day.engines, quantity)
    published_s = day.published.timestamp()
    before = await metrics.matrix(f"{selected}[{history_seconds(strategy)}s]", day.published)
    live = LiveWatch(
        {quantity.metric: before},
        plan(strategy, float(DAY), {}),
        published_s=published_s,
        end_s=published_s + DAY,
        level_s=3600.0,
        left_out=[],
    )
    used, took = 0, []
    for round_ in range(1, int((DAY - LIVE) / SCRAPE)):
        at = day.published + timedelta(seconds=round_ * SCRAPE)
        since = await metrics.matrix(f"{selected}[{int(OVERLAP + SCRAPE)}s]", at)
        began = time.thread_time()
        live.advance({quantity.metric: since}, at.timestamp() - 0.5 * SCRAPE)
        live.progress(at, None)
        took.append(time.thread_time() - began)
        if round_ == 1000:
            used = memory()
    return Followed(live, memory() - used, (1e3 * float(np.median(took)), 1e3 * float(np.quantile(took, 0.99))))


def memory() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)


async def test_a_day_is_watched_in_a_few_events_and_in_flat_memory(
    *,
    day: Day,
    author: Author,
    environment_files: EnvironmentFiles,
    temporal_client: "Client",
    temporal_settings: dict[str, str],
    namespace: str,
    tmp_path: Path,
) -> None:
    metrics = PrometheusMetrics(day.url)
    followed = await follow(day, metrics)
    metrics.close()
    LOG.info("rounds: memory grew by %.1f MiB, CPU time of one %.2f ms, p99 %.2f ms", *followed.said())
    assert len(followed.live.trace) > (DAY - LIVE) / SCRAPE - 3
    assert not followed.live.watch.alarmed
    assert followed.growth < GROWTH
    environment = tmp_path / "watched.toml"
    targets = "".join(
        f'[[targets]]\nid = "{name}"\nkind = "policy_engine"\nurl = "http://127.0.0.1:9"\n' for name in day.engines
    )
    environment.write_text(
        f'schema_version = 1\nenvironment = "{ENVIRONMENT}"\ngate = "{CHECKOUT / "tests"}"\n'
        f'trust = "{environment_files.directory / "trust" / "trust.toml"}"\n{targets}'
    )
    arguments = [
        str(CHECKOUT / "tests" / "integration" / "watch_worker.py"),
        namespace,
        str(environment),
        str(author.http.base_url),
        day.url,
        str(environment_files.directory / "keys" / "assessor-client.jwk"),
    ]
    names = ("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE")
    settings = {name: temporal_settings[name] for name in names}
    settings |= {"PYTHONPATH": str(CHECKOUT), "METRICS_ADDRESS": f"127.0.0.1:{free_port()}"}
    worker = Process(arguments, settings, tmp_path / "worker.log").start()
    try:
        published = now() - timedelta(seconds=DAY - LIVE)
        x = WatchTask(
            environment=ENVIRONMENT,
            update_id=str(uuid4()),
            generation=1,
            published_at=published,
            strategy=day.strategy(),
            until_seconds=DAY,
        )
        handle = await temporal_client.start_workflow(
            "WatchLong", x, id=f"{namespace}-watch", task_queue=namespace, result_type=WatchReport
        )
        process = psutil.Process(worker.pid)
        idle = process.memory_info().rss

        async def caught_up() -> bool:
            pending = (await handle.describe()).raw_description.pending_activities
            payloads = pending[0].heartbeat_details.payloads if pending else []
            return bool(payloads) and json.loads(payloads[0].data)["ticks"] > (DAY - LIVE) / SCRAPE - 60

        await eventually(caught_up, timedelta(seconds=240))
        began = process.memory_info().rss
        report = await asyncio.wait_for(handle.result(), LIVE + 300)
        ended = process.memory_info().rss
    finally:
        worker.kill()
    events = len((await handle.fetch_history()).events)
    sizes = [round(rss / 2**20) for rss in (idle, began, ended)]
    LOG.info("worker: %s MiB idle, after the catching up, at the end; %d events; %s", sizes, events, report)
    assert report.verdict is Verdict.OK, report.detail
    assert report.samples > 17_000
    assert events < EVENTS
    assert ended - began < EVIDENCE
