"""Runbook step 4, second half: did ``policy_engine_evaluations_total`` change at or after publish?

The judgement is constitution/watching.py's: an anytime-valid test on raw counter samples. Here is only the asking: what
is read, how often, what is kept as evidence, and what happens while Prometheus is silent.
"""

import asyncio
import json
import math
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity

from activities.failures import classified
from activities.keys import require_environment
from activities.ports import ConstitutionService, Deployment, Metrics
from activities.watch_query import history_seconds, resolved, selector
from constitution.checksum import Checksum
from constitution.counters import InvalidSeriesError, parse_matrix
from constitution.environment import Strategy
from constitution.errors import ContentError, InvalidRequestError, UnavailableError
from constitution.model import Model
from constitution.release import Release, Standing, Verdict
from constitution.spike import Reading, SpikeParameters, SpikeTest, describe_power, power
from constitution.watching import Watch as SampleWatch

OVERLAP = timedelta(minutes=2)  # each round reads this much again: a sample that Prometheus stored late is seen
GRACE = timedelta(seconds=60)  # after the watch's end, how long a silent Prometheus is waited for
STALE = timedelta(seconds=15)  # a newest sample older than this (or three scrapes) means that nobody scrapes
MAX_RAW = 4 * 1024 * 1024  # bytes of raw samples in the evidence; the sums per scrape are always all there
REHEARSAL_STEPS = 60


class WatchInput(Model):
    """What to watch. ``generation`` and ``published_at`` are null before publish (``check_watch``).

    ``until_seconds`` is the watch's length counted from ``published_at``; ``tenants`` are those whose evaluations
    count (the probe tenant never does); empty: all.
    """

    environment: str
    update_id: str
    generation: int | None
    published_at: datetime | None
    strategy: Strategy
    until_seconds: float
    tenants: tuple[str, ...] = ()


class Preflight(Model):
    """Whether a watch could judge a release published now; ``verdict`` says why not."""

    ready: bool
    verdict: Verdict | None
    detail: str
    power: str


class WatchReport(Model):
    """The watch's word and what it rests on. ``ci`` is the confidence sequence of ``ratio``; null = unbounded."""

    verdict: Verdict
    detail: str
    decided_at: datetime
    ratio: float | None
    log_e: float | None
    ci: tuple[float | None, float | None]
    coverage: float
    samples: int
    query: str
    evidence: Checksum | None


class _Live:
    """One attempt's watch: samples in, trace out.

    Args:
        watch: begun at publish.
        end_s: unix seconds of the watch's end.
    """

    def __init__(self, watch: SampleWatch, end_s: float) -> None:
        self.watch = watch
        self.end_s = end_s
        self.trace: list[tuple[float, float]] = []  # unix seconds, highest log e-value by then

    def advance(self, now_s: float) -> Reading:
        """Judge tick by tick, so that the evidence shows how the e-value grew."""
        step = self.watch.test.parameters.scrape_interval_s
        at = (self.trace[-1][0] if self.trace else self.watch.origin_s) + step
        reading = self.watch.test.reading()
        while at <= now_s and at <= self.end_s + step and not self.watch.test.anomalous:
            reading = self.watch.advance(at)
            self.trace.append((at, reading.max_log_e))
            at += step
        return reading


class Watch:
    """Reads raw samples; stores its evidence as a blob; changes nothing else."""

    def __init__(self, *, metrics: Metrics, service: ConstitutionService, deployment: Deployment) -> None:
        self._metrics = metrics
        self._service = service
        self._deployment = deployment

    @activity.defn
    @classified
    async def check_watch(self, x: WatchInput) -> Preflight:
        """Say before publish whether a watch that began now could end in a verdict, and what it could see.

        The metric must exist, be fresh, stand still and be busy enough: the watch is rehearsed on the traffic of the
        baseline going on unchanged, and must end as ``ok``.
        Twice, killed half-way, or late: it only reads.

        Raises:
            UnavailableError: Prometheus or constitution-service does not answer.
        """
        require_environment(self._deployment, x.environment)
        if x.until_seconds <= 0:
            return Preflight(ready=True, verdict=Verdict.NOT_WATCHED, detail="the strategy watches nothing", power="")
        now = datetime.now(UTC)
        seconds = history_seconds(x.strategy)
        matrix = await self._metrics.matrix(f"{self._selector(x)}[{seconds}s]", now)
        lack = _lack_of_samples(matrix, now, x.strategy)
        if lack is not None:
            return Preflight(ready=False, verdict=Verdict.NO_DATA, detail=lack, power="")
        watch = _begin(matrix, now, x, await self._left_out())
        end = _rehearse(watch.test)
        said = describe_power(power(watch.test.baseline, watch.test.parameters), watch.test.parameters.bake_s)
        ready = end.verdict is Verdict.OK
        return Preflight(ready=ready, verdict=None if ready else end.verdict, detail=end.reason, power=said)

    @activity.defn
    @classified
    async def watch_metric(self, x: WatchInput) -> WatchReport:
        """Watch until the end, or until an anomaly; return early with that.

        Assumes: ``published_at`` is the release's commit time. Each attempt computes everything again from the raw
        samples since then, so that a killed attempt's successor comes to the same verdict at the same moment; its
        evidence is content-addressed. While Prometheus is silent the watch goes on, blind; what was missed is
        read later, and what stays missing lowers the coverage: it never makes an ``ok``.
        Late, after its caller died: it only reads, and stores a blob. A cancel is noticed within a second or a scrape.

        Raises:
            InvalidRequestError: no generation and time given, or Prometheus refuses the query.
            UnavailableError: constitution-service does not answer.
        """
        require_environment(self._deployment, x.environment)
        if x.published_at is None or x.generation is None:
            raise InvalidRequestError("a watch needs a generation and the time it was published")
        query = resolved(self._selector(x), history_seconds(x.strategy), x.published_at)
        if x.until_seconds <= 0:
            return _blind(Verdict.NOT_WATCHED, "the strategy watches nothing", query)
        end = x.published_at + timedelta(seconds=x.until_seconds)
        live, trouble = await self._follow(x, end)
        if live is None:
            return _blind(Verdict.NO_DATA, f"Prometheus did not answer until the watch was over: {trouble}", query)
        reading = live.watch.test.reading() if live.watch.test.anomalous else live.watch.finish()
        if reading.verdict is None:  # the test gives one at its end, always
            raise AssertionError(reading.reason)
        decided_s = live.watch.decided_at(reading)
        detail = reading.reason if trouble is None else f"{reading.reason} (Prometheus at the end: {trouble})"
        return WatchReport(
            verdict=reading.verdict,
            detail=detail,
            decided_at=end if decided_s is None else datetime.fromtimestamp(decided_s, UTC),
            ratio=reading.ratio,
            log_e=_finite(reading.max_log_e),
            ci=(_finite(reading.ci[0]), _finite(reading.ci[1])),
            coverage=reading.coverage,
            samples=len([t for t in live.watch.ticks if t.seconds > 0]),
            query=query,
            evidence=await self._keep(x, live, reading, query),
        )

    async def _follow(self, x: WatchInput, end: datetime) -> tuple[_Live | None, str | None]:
        """Poll until the end or an anomaly; return the watch, if it could begin, and Prometheus's last trouble."""
        published = x.published_at or end
        scrape = x.strategy.scrape_seconds
        live: _Live | None = None
        read_until = published
        while True:
            trouble: str | None = None
            now = datetime.now(UTC)
            try:
                if live is None:
                    before = await self._metrics.matrix(
                        f"{self._selector(x)}[{history_seconds(x.strategy)}s]", published
                    )
                    watch = _begin(before, published, x, await self._left_out(published))
                    live = _Live(watch, end.timestamp())
                seconds = math.ceil((now - read_until + OVERLAP).total_seconds())
                live.watch.feed(await self._metrics.matrix(f"{self._selector(x)}[{seconds}s]", now))
                read_until = now
                # Half a scrape in the past: the last scrape must have been stored.
                live.advance(now.timestamp() - 0.5 * scrape)
            except UnavailableError as error:
                trouble = error.message
            except InvalidSeriesError as error:
                raise InvalidRequestError(f"Prometheus answered with something that is no matrix: {error}") from error
            activity.heartbeat(_progress(live, now, end, trouble))
            if live is not None and live.watch.test.anomalous:
                return live, None
            # The last tick may end a scrape after the watch, and is judged half a scrape later.
            over = now >= end + timedelta(seconds=2 * scrape)
            if over and (trouble is None or now >= end + GRACE):
                return live, trouble
            await asyncio.sleep(min(scrape, 1.0) if over else max(min(scrape, 5.0), 0.2))

    def _selector(self, x: WatchInput) -> str:
        engines = [t.id for t in self._deployment.environment.targets if t.kind == "policy_engine"]
        return selector(x.tenants, engines)

    async def _left_out(self, until: datetime | None = None) -> list[tuple[float, float]]:
        """Return the windows in which a release was live that was undone: their traffic is no baseline."""
        releases = await self._service.releases()
        windows = []
        for bad in releases:
            if bad.standing not in {Standing.WITHDRAWN, Standing.POISONED}:
                continue
            undone = _undone_at(bad, releases)
            if undone is not None and (until is None or bad.effective_at < until):
                windows.append((bad.effective_at.timestamp(), undone.timestamp()))
        return windows

    async def _keep(self, x: WatchInput, live: _Live, reading: Reading, query: str) -> str | None:
        """Store what the verdict rests on; a service that refuses it must not turn an anomaly into an error."""
        until = min(datetime.now(UTC), datetime.fromtimestamp(live.end_s, UTC) + OVERLAP)
        published = x.published_at or until
        seconds = history_seconds(x.strategy) + math.ceil((until - published).total_seconds())
        try:
            raw: Any = await self._metrics.matrix(f"{self._selector(x)}[{seconds}s]", until)
        except UnavailableError as error:
            raw = f"not read again: {error.message}"
        if len(json.dumps(raw)) > MAX_RAW:
            raw = (
                f"left out: more than {MAX_RAW} bytes; ask Prometheus for {resolved(self._selector(x), seconds, until)}"
            )
        test = live.watch.test
        evidence = {
            "update_id": x.update_id,
            "generation": x.generation,
            "published_at": published.isoformat(),
            "query": query,
            "parameters": test.parameters.model_dump(mode="json"),
            "baseline": {name: _finite(value) for name, value in asdict(test.baseline).items()},
            "ticks": [[t.end_s, t.count, t.exposure, t.seconds, t.resets] for t in live.watch.ticks],
            "log_e": [[at, _finite(value)] for at, value in live.trace],
            "verdict": reading.verdict,
            "reason": reading.reason,
            "ratio": reading.ratio,
            "ci": [_finite(reading.ci[0]), _finite(reading.ci[1])],
            "coverage": reading.coverage,
            "samples": raw,
        }
        data = json.dumps(evidence, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        try:
            return await self._service.put_blob(data)
        except ContentError:
            if reading.verdict is Verdict.OK:  # an ok without evidence is none
                raise
            activity.logger.exception("watch_evidence_refused")
            return None


def _begin(
    matrix: list[dict[str, Any]], published: datetime, x: WatchInput, left_out: list[tuple[float, float]]
) -> SampleWatch:
    strategy = x.strategy
    base = strategy.watch_seconds if 0 < strategy.watch_seconds < x.until_seconds else x.until_seconds
    parameters = SpikeParameters(
        alpha=strategy.alpha,
        delta=strategy.delta,
        min_rate=strategy.min_rate,
        direction=strategy.direction,
        scrape_interval_s=strategy.scrape_seconds,
        bake_s=base,
    )
    try:
        watch = SampleWatch.begin(
            matrix,
            publish_s=published.timestamp(),
            parameters=parameters,
            measure=strategy.measure,
            level_s=float(strategy.baseline_seconds),
            left_out=left_out,
        )
    except InvalidSeriesError as error:
        raise InvalidRequestError(f"Prometheus answered with something that is no matrix: {error}") from error
    if x.until_seconds > base:  # extended once: the test stays the one that it was
        watch.test.extend(x.until_seconds - base)
    return watch


def _rehearse(test: SpikeTest) -> Reading:
    """End a copy of the test after a watch in which the baseline's traffic goes on unchanged."""
    copy = SpikeTest.start(test.baseline, test.parameters)
    seconds = test.parameters.bake_s / REHEARSAL_STEPS
    exposure = seconds * test.baseline.exposure_per_second
    for _ in range(REHEARSAL_STEPS):
        copy.observe(test.baseline.rate * exposure, exposure, seconds)
    return copy.finish()


def _lack_of_samples(matrix: list[dict[str, Any]], now: datetime, strategy: Strategy) -> str | None:
    try:
        newest = max((samples[-1][0] for _, samples in parse_matrix(matrix) if samples), default=None)
    except InvalidSeriesError as error:
        raise InvalidRequestError(f"Prometheus answered with something that is no matrix: {error}") from error
    if newest is None:
        return "the metric is missing: Prometheus has no sample of it; is the policy engine scraped?"
    age = now.timestamp() - newest
    if age > max(3 * strategy.scrape_seconds, STALE.total_seconds()):
        return f"the metric is stale: its newest sample is {age:.0f} s old"
    return None


def _undone_at(bad: Release, releases: list[Release]) -> datetime | None:
    later = [r.effective_at for r in releases if r.generation > bad.generation]
    return min(later, default=None)


def _progress(live: _Live | None, now: datetime, end: datetime, trouble: str | None) -> dict[str, Any]:
    reading = live.watch.test.reading() if live is not None else None
    return {
        "left_s": max(0, round((end - now).total_seconds())),
        "ticks": len(live.watch.ticks) if live is not None else 0,
        "ratio": reading.ratio if reading else None,
        "log_e": _finite(reading.max_log_e) if reading else None,
        "limit": _finite(live.watch.test.parameters.limit) if live is not None else None,
        "trouble": trouble,
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _blind(verdict: Verdict, detail: str, query: str) -> WatchReport:
    return WatchReport(
        verdict=verdict,
        detail=detail,
        decided_at=datetime.now(UTC),
        ratio=None,
        log_e=None,
        ci=(None, None),
        coverage=0.0,
        samples=0,
        query=query,
        evidence=None,
    )
