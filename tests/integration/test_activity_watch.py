"""The watch, on a real Prometheus that scrapes a real exporter once a second."""

import asyncio
import math
import random
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry, Counter, start_http_server
from temporalio.testing import ActivityEnvironment

from activities.watch.query import selector
from activities.watch.watch import Watch, WatchInput, WatchTask
from adapters.prometheus import PrometheusMetrics
from constitution.environment import Strategy, Target
from constitution.errors import InvalidRequestError, UnavailableError
from constitution.release import Verdict
from constitution.watch.evidence import WatchEvidence
from constitution.watch.watching import QuantityWatch
from tests.helpers import eventually
from tests.integration.activity_support import assessor_of, make_config, now, refused, run
from tests.machine import pace
from tests.ports import free_port
from tests.resources import Prometheus
from tests.world.author import Author
from tests.world.files import ENVIRONMENT, EnvironmentFiles


@dataclass
class Traffic:
    """Counts evaluations at a rate, in a thread of its own, on an exporter that Prometheus scrapes.

    Args:
        engine: value of the label ``target``.
        per_second: how many evaluations to count; half of them are denials.
    """

    engine: str
    per_second: float
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        registry = CollectorRegistry()
        self._counter = Counter(
            "policy_engine_evaluations_total",
            "Decisions.",
            ["decision", "severity", "tenant", "target"],
            registry=registry,
        )
        self._server, self._thread = start_http_server(self.port, addr="127.0.0.1", registry=registry)
        self._over = threading.Event()
        self._worker = threading.Thread(target=self._count)
        self._worker.start()

    def _count(self) -> None:
        dice = random.Random(7)  # noqa: S311 - traffic, no secret
        while not self._over.wait(dice.expovariate(self.per_second)):
            decision = "deny" if dice.random() < 0.5 else "allow"
            self._counter.labels(decision, "low", "global", self.engine).inc()
            self._counter.labels(decision, "low", "runbook-probe", self.engine).inc(1000)  # never to be seen

    def stop(self) -> None:
        self._over.set()
        self._worker.join()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Scene:
    """Traffic on one engine, and the activities that watch it."""

    traffic: Traffic
    watch: Watch
    author: Author
    metrics: PrometheusMetrics

    def ask(self, published_at: Any, seconds: float = 12, **changes: Any) -> WatchTask:
        strategy = Strategy(
            watch_seconds=int(seconds), baseline_seconds=30, scrape_seconds=1, min_rate=0, direction="up"
        ).model_copy(update=changes)
        return WatchTask(
            environment=ENVIRONMENT,
            update_id=str(uuid4()),
            generation=1,
            published_at=published_at,
            strategy=strategy,
            until_seconds=seconds,
            tenants=("global",),
        )

    async def scraped(self, seconds: int) -> None:
        """Wait until this many seconds of samples are there."""
        query = f"{selector(['global'], [self.traffic.engine])}[5m]"

        async def enough() -> bool:
            series = await self.metrics.matrix(query, now())
            return bool(series) and max(len(s["values"]) for s in series) >= seconds

        await eventually(enough, timedelta(seconds=seconds + 20))


def judged_again(evidence: WatchEvidence) -> tuple[Verdict | None, float]:
    """What the samples in the evidence say when somebody else judges them, with nothing but that file."""
    kept = evidence.quantities[evidence.leading]
    samples = evidence.samples["policy_engine_evaluations_total"]
    assert not isinstance(samples, str)
    watch = QuantityWatch.begin(
        samples,
        publish_s=evidence.published_at.timestamp(),
        parameters=kept.parameters,
        measure=kept.measure,
        level_s=30,
    )
    watch.advance(evidence.ends_at.timestamp() + kept.parameters.scrape_interval_s)
    reading = watch.finish()
    return reading.verdict, reading.max_log_e


@pytest.fixture
async def scene(
    author: Author, environment_files: EnvironmentFiles, prometheus: Prometheus, tmp_path: Path
) -> AsyncIterator[Scene]:
    traffic = Traffic(engine=f"engine-{uuid4().hex[:8]}", per_second=60)
    prometheus.scrape(f"127.0.0.1:{traffic.port}", job="policy-engine")
    targets = (Target(id=traffic.engine, kind="policy_engine", url=f"http://127.0.0.1:{traffic.port}"),)
    metrics = PrometheusMetrics(prometheus.url)
    config = make_config(environment_files, tmp_path, targets=targets)
    watch = Watch(metrics=metrics, service=author.assessor, config=config, assessor=assessor_of(author, config))
    yield Scene(traffic, watch, author, metrics)
    traffic.stop()
    metrics.close()


@pytest.mark.timeout(180)
async def test_steady_traffic_is_ok_with_evidence_and_a_spike_is_an_anomaly_early(scene: Scene) -> None:
    await scene.scraped(32)
    before = await run(scene.watch.check_watch, scene.ask(None).model_copy(update={"generation": None}))
    assert before.ready, before.detail
    assert "x2 is seen" in before.power
    published = now()
    calm = scene.ask(published)
    report = await run(scene.watch.watch, calm)
    assert report.verdict is Verdict.OK, report.detail
    assert report.coverage > 0.8
    assert "runbook-probe" in report.query
    assert report.evidence is not None
    evidence = WatchEvidence.read(await scene.author.worker.blob(report.evidence))
    assert (evidence.verdict, evidence.leading, evidence.limit) == (Verdict.OK, "evaluations", report.limit)
    kept = evidence.quantities["evaluations"]
    assert len(kept.ticks) >= report.samples > 8
    assert [at for at, _ in kept.log_e] == [at for at, _ in evidence.log_e]
    assert kept.query == report.query
    samples = evidence.samples["policy_engine_evaluations_total"]
    assert not isinstance(samples, str)
    assert all(series["metric"]["tenant"] == "global" for series in samples)
    assert (await run(scene.watch.watch, calm)).evidence == report.evidence, "the same watch, stored once"
    verdict, log_e = judged_again(evidence)
    assert verdict is Verdict.OK
    assert log_e == pytest.approx(report.log_e, abs=1e-9)
    published = now()
    spike = scene.ask(published, seconds=60)
    environment = ActivityEnvironment()
    beats: list[Any] = []
    environment.on_heartbeat = lambda *details: beats.append(details[0])
    task = asyncio.create_task(run(scene.watch.watch, spike, environment))
    await eventually(lambda: any(beat["ticks"] >= 1 for beat in beats), timedelta(seconds=20))
    scene.traffic.per_second = 600
    report = await asyncio.wait_for(task, 50)
    assert report.verdict is Verdict.ANOMALY, report.detail
    assert now() < published + timedelta(seconds=50)
    assert report.ratio is not None
    assert report.ratio > 1.2
    again = await run(scene.watch.watch, spike)
    assert (again.verdict, again.decided_at, again.log_e) == (report.verdict, report.decided_at, report.log_e)


async def test_nobody_has_a_release_watched_for_longer_than_a_hold_may_last(scene: Scene) -> None:
    await scene.author.confirmed(scene.author.draft("1.0.0"), expected_generation=0)
    for seconds in (1e9, math.inf, math.nan):
        failure = await refused(
            scene.watch.watch_metric, WatchInput(environment=ENVIRONMENT, generation=1, until_seconds=seconds)
        )
        assert failure.non_retryable
        assert "ends at most" in failure.message


@pytest.mark.timeout(120)
async def test_what_cannot_be_judged_is_never_ok(scene: Scene) -> None:
    missing = scene.ask(now(), seconds=2)
    config = make_config(
        scene.author.files,
        Path(scene.author.files.directory),
        targets=(Target(id="nobody", kind="policy_engine", url="http://127.0.0.1:1"),),
    )
    other = Watch(
        metrics=scene.metrics,
        service=scene.author.assessor,
        config=config,
        assessor=assessor_of(scene.author, config),
    )
    look = await run(other.check_watch, missing)
    assert (look.ready, look.verdict) == (False, Verdict.NO_DATA)
    assert "missing" in look.detail
    report = await run(other.watch, missing)
    assert report.verdict is Verdict.NO_DATA
    await scene.scraped(3)
    look = await run(scene.watch.check_watch, scene.ask(None))
    assert (look.ready, look.verdict) == (False, Verdict.CANNOT_TELL)
    assert "no baseline" in look.detail
    nothing = await run(scene.watch.watch, scene.ask(now(), seconds=0))
    assert (nothing.verdict, nothing.evidence) == (Verdict.NOT_WATCHED, None)
    with pytest.raises(InvalidRequestError):
        await run(scene.watch.watch, scene.ask(None))


async def test_a_watch_stops_promptly_when_it_is_cancelled(scene: Scene) -> None:
    environment = ActivityEnvironment()
    beat = asyncio.Event()
    environment.on_heartbeat = lambda *_: beat.set()
    task = asyncio.create_task(run(scene.watch.watch, scene.ask(now(), seconds=600), environment))
    await asyncio.wait_for(beat.wait(), 20)
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 2 * pace())


async def test_a_refused_query_is_permanent_and_a_silent_prometheus_is_not(prometheus: Prometheus) -> None:
    metrics = PrometheusMetrics(prometheus.url)
    with pytest.raises(InvalidRequestError, match="HTTP 400"):
        await metrics.matrix("up{", now())
    with pytest.raises(InvalidRequestError):
        await metrics.instant("sum(")
    metrics.close()
    silent = PrometheusMetrics("http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match="did not answer"):
        await silent.matrix("up", now())
    silent.close()
