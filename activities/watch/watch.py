"""Runbook step 4, second half: did ``policy_engine_evaluations_total`` change at or after publish?

The judgement is constitution/watch/watching_family.py's: several quantities within one budget of false alarms. This
module asks: what is read, how often, what is kept as evidence, and what happens while Prometheus is silent.
"""

import asyncio
import json
import math
import time
from collections.abc import Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from temporalio import activity

from activities.attesting import Attester
from activities.failures import classified
from activities.keys import require_environment
from activities.past_releases import past_releases
from activities.ports import ActivityConfig, ConstitutionService, Metrics
from activities.watch.gauges import measure
from activities.watch.live import LiveWatch, finite, shaped
from activities.watch.plan import plan
from activities.watch.preflight import Preflight, lack_of_samples, rehearse
from activities.watch.query import history_seconds, resolved, selector
from constitution.checksum import Checksum
from constitution.environment import Strategy
from constitution.errors import ContentError, InvalidRequestError, UnavailableError
from constitution.model import Model
from constitution.past import Past
from constitution.release import Release, Standing, Verdict
from constitution.trust.attestation import WatchPredicate
from constitution.watch.counters import InvalidSeriesError
from constitution.watch.evidence import WatchEvidence
from constitution.watch.prediction import Expected, Prediction
from constitution.watch.quantities import QUANTITIES
from constitution.watch.watching_family import FamilyWatch, Watched

OVERLAP = timedelta(minutes=2)  # each round reads this much again: a sample that Prometheus stored late is seen
BEAT = timedelta(seconds=1)  # how long a round may be silent
GRACE = timedelta(seconds=60)  # after the watch's end, how long a silent Prometheus is waited for
MAX_RAW = 24 * 1024 * 1024  # bytes of raw samples in the evidence; the sums per scrape are always all there
LEAST_SAMPLE = 18  # bytes of the shortest one as JSON: a time in whole seconds, a value of one digit

T = TypeVar("T")
Matrices = dict[str, list[dict[str, Any]]]
Windows = list[tuple[float, float]]


class WatchInput(Model):
    """Which release to watch: by its board's strategy, until ``until_seconds`` after it was published, or longer."""

    environment: str
    generation: int
    until_seconds: float


class WatchTask(Model):
    """What to watch. ``generation`` and ``published_at`` are null before publish (``check_watch``).

    ``until_seconds`` is the watch's length counted from ``published_at``; ``tenants`` are those whose evaluations
    count (the probe tenant never does); empty: all. ``evidence`` names what the board approved: its prediction is the
    expected change.
    """

    environment: str
    update_id: str
    generation: int | None
    published_at: datetime | None
    strategy: Strategy
    until_seconds: float
    tenants: tuple[str, ...] = ()
    evidence: Checksum | None = None


class WatchReport(Model):
    """The watch's word and what it rests on. ``ci`` is the confidence sequence of ``ratio``; null = unbounded.

    Of several quantities, ``ratio`` and ``ci`` are those of the ``leading`` one: that raised the alarm, that lacks
    evidence, or that is the most suspicious. ``limit`` is what ``log_e`` is held against.
    """

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
    leading: str = ""
    limit: float | None = None


class Watch:
    """Reads raw samples; stores its evidence as a blob and an attestation of it; changes nothing else."""

    def __init__(
        self, *, metrics: Metrics, service: ConstitutionService, config: ActivityConfig, assessor: Attester
    ) -> None:
        self._assessor = assessor
        self._metrics = metrics
        self._service = service
        self._config = config

    @activity.defn
    @classified
    async def check_watch(self, x: WatchTask) -> Preflight:
        """Say before publish whether a watch that began now could end in a verdict, and what it could see.

        Each metric must exist, be fresh, stand still and be busy enough: the watch is rehearsed on the traffic of the
        baseline going on unchanged, and must end as ``ok``.
        Twice, killed half-way, or late: it only reads.

        Raises:
            UnavailableError: Prometheus or constitution-service does not answer.
        """
        require_environment(self._config, x.environment)
        if x.until_seconds <= 0:
            return Preflight(ready=True, verdict=Verdict.NOT_WATCHED, detail="the strategy watches nothing", power="")
        now = datetime.now(UTC)
        watched = plan(x.strategy, _base(x), await self._expected(x))
        matrices = await self._ask(x, watched, history_seconds(x.strategy), now)
        asked = {QUANTITIES[name].metric for name, one in watched.items() if one.required}
        lack = lack_of_samples({name: matrices[name] for name in sorted(asked)}, now, x.strategy)
        if lack is not None:
            return Preflight(ready=False, verdict=Verdict.NO_DATA, detail=lack, power="")
        windows = await self._left_out()
        family = await asyncio.to_thread(_begin, matrices, now, x, watched, windows)
        return rehearse(family)

    @activity.defn
    @classified
    async def watch_metric(self, x: WatchInput) -> WatchReport:
        """Watch a release as its board signed, until the end or an anomaly; sign what was seen.

        Each attempt computes everything again from the raw
        samples since then, so that a killed attempt's successor comes to the same verdict at the same moment; its
        evidence is content-addressed. While Prometheus is silent the watch goes on, blind; what was missed is
        read later, and what stays missing lowers the coverage: it never makes an ``ok``.
        Late, after its caller died: it only reads, and stores a blob. A cancel is noticed within a second or a scrape.

        Raises:
            NotFoundError, UntrustedError, EvidenceError: there is no such release, or none that says how it is watched.
            InvalidRequestError: no hold of this environment lasts so long.
            UnavailableError: constitution-service does not answer.
        """
        require_environment(self._config, x.environment)
        release, _ = await self._assessor.release(x.generation)
        strategy = (await self._assessor.plan(release)).watch
        self._require_ending(x, release, strategy)
        report = await self.watch(
            WatchTask(
                environment=release.environment,
                update_id=release.update_id,
                generation=release.generation,
                published_at=release.effective_at,
                strategy=strategy,
                until_seconds=max(x.until_seconds, strategy.watch_seconds),
                tenants=self._config.environment.tenants,
                evidence=release.evidence,
            )
        )
        if report.evidence is not None:
            await self._assessor.attest(
                WatchPredicate(
                    environment=release.environment,
                    generation=release.generation,
                    update_id=release.update_id,
                    strategy=strategy,
                    test_evidence=release.evidence,
                    published_at=release.effective_at,
                    ends_at=release.effective_at + timedelta(seconds=max(x.until_seconds, strategy.watch_seconds)),
                    decided_at=report.decided_at,
                    verdict=report.verdict,
                    evidence=report.evidence,
                )
            )
        return report

    def _require_ending(self, x: WatchInput, release: Release, strategy: Strategy) -> None:
        """Refuse what outlasts an extended watch and any hold: a stranger could take an assessor's places for ever."""
        elapsed = max(0.0, (datetime.now(UTC) - release.effective_at).total_seconds())
        most = max(elapsed, 2.0 * strategy.watch_seconds) + self._config.environment.deadlines.hold
        if not x.until_seconds <= most:  # also of no number
            raise InvalidRequestError(
                f"the watch of generation {x.generation} ends at most {most:.0f} s after publish, not {x.until_seconds}"
            )

    async def watch(self, x: WatchTask) -> WatchReport:
        """Watch until the end, or until an anomaly; return early with that. ``watch_metric`` says more.

        Raises:
            InvalidRequestError: no generation and time given.
            UnavailableError: constitution-service does not answer.
        """
        if x.published_at is None or x.generation is None:
            raise InvalidRequestError("a watch needs a generation and the time it was published")
        expected = await self._expected(x)
        watched = plan(x.strategy, _base(x), expected)
        queries = self._queries(x, watched, history_seconds(x.strategy), x.published_at)
        query = "; ".join(dict.fromkeys(queries.values()))
        if x.until_seconds <= 0:
            return _blind(Verdict.NOT_WATCHED, "the strategy watches nothing", query)
        end = x.published_at + timedelta(seconds=x.until_seconds)
        live, trouble = await self._follow(x, watched, x.published_at, end)
        if live is None:
            measure(x.environment, Verdict.NO_DATA, {}, None)
            blind = f"Prometheus did not answer until the watch was over: {trouble}"
            return await self._blind_evidence(x, x.published_at, end, _blind(Verdict.NO_DATA, blind, query))
        reading = live.closing()
        if reading.verdict is None:  # the test gives one at its end, always
            raise AssertionError(reading.reason)
        measure(x.environment, reading.verdict, {n: r.log_e for n, r in reading.readings.items()}, live)
        reason = live.reason(reading)
        leading, said = live.watch.leading(reading)
        decided_at = live.decided_at(reading, end)
        evidence = WatchEvidence(
            environment=x.environment,
            update_id=x.update_id,
            generation=x.generation,
            strategy=x.strategy,
            test_evidence=x.evidence,
            published_at=x.published_at,
            ends_at=end,
            alpha=live.watch.alpha,
            limit=live.watch.limit,
            log_e=tuple(live.trace),
            verdict=reading.verdict,
            reason=reason,
            decided_at=decided_at,
            leading=leading,
            quantities=live.quantities(reading, queries, expected),
            samples=await beating(self._again(x, watched, x.published_at, decided_at)),
        )
        return WatchReport(
            verdict=reading.verdict,
            detail=reason if trouble is None else f"{reason} (Prometheus at the end: {trouble})",
            decided_at=decided_at,
            ratio=said.ratio,
            log_e=finite(reading.max_log_e),
            ci=(finite(said.ci[0]), finite(said.ci[1])),
            coverage=said.coverage,
            samples=live.samples(),
            query=query,
            evidence=await beating(self._keep(evidence)),
            leading=leading,
            limit=live.watch.limit,
        )

    async def _follow(
        self, x: WatchTask, watched: Mapping[str, Watched], published: datetime, end: datetime
    ) -> tuple[LiveWatch | None, str | None]:
        """Poll until the end or an anomaly; return the watch, if it could begin, and Prometheus's last trouble."""
        scrape = x.strategy.scrape_seconds
        live: LiveWatch | None = None
        read_until = published
        while True:
            trouble: str | None = None
            now = datetime.now(UTC)
            try:
                if live is None:
                    live = await beating(self._begin(x, watched, published))
                await beating(self._round(x, live, read_until, now))
                read_until = now
            # While a release is live, no answer of Prometheus is permanent: what lasts to the end is ``no_data``, and
            # the strategy says what follows. Before publish check_watch refuses a query that can never be answered.
            except (UnavailableError, InvalidRequestError) as error:
                trouble = error.message
            except InvalidSeriesError as error:
                trouble = f"Prometheus answered with something that is no matrix: {error}"
            beat = {"left_s": max(0, round((end - now).total_seconds())), "ticks": 0, "trouble": trouble}
            if live is not None:
                beat = live.progress(now, trouble)
                measure(x.environment, None, {name: one.test.log_e for name, one in live.watch.watches.items()}, live)
            activity.heartbeat(beat)
            if live is not None and live.watch.alarmed:
                return live, None
            # The last tick may end a scrape after the watch, and is judged half a scrape later.
            over = now >= end + timedelta(seconds=2 * scrape)
            if over and (trouble is None or now >= end + GRACE):
                return live, trouble
            await asyncio.sleep(pause(live, scrape, over=over, blind=trouble is not None))

    async def _begin(self, x: WatchTask, watched: Mapping[str, Watched], published: datetime) -> LiveWatch:
        """Read what was before publish, and freeze the baselines."""
        before = await self._ask(x, watched, history_seconds(x.strategy), published)
        windows = await self._left_out(published)
        return await asyncio.to_thread(_live, before, published, x, watched, windows)

    async def _round(self, x: WatchTask, live: LiveWatch, read_until: datetime, now: datetime) -> None:
        """Read what was scraped since the last round, and judge it, in a thread: a successor has hours to judge."""
        seconds = math.ceil((now - read_until + OVERLAP).total_seconds())
        since = await self._ask(x, live.watched, seconds, now)
        # Half a scrape in the past: the last scrape must have been stored.
        await asyncio.to_thread(live.advance, since, now.timestamp() - 0.5 * x.strategy.scrape_seconds)

    async def _ask(self, x: WatchTask, watched: Mapping[str, Watched], seconds: int, at: datetime) -> Matrices:
        """Ask each metric once, whatever number of quantities is read from it."""
        found: Matrices = {}
        for selected, metric in self._selected(x, watched).items():
            found[metric] = await self._metrics.matrix(f"{selected}[{seconds}s]", at)
        return found

    def _selected(self, x: WatchTask, watched: Mapping[str, Watched]) -> dict[str, str]:
        return {self._selector(x, name): QUANTITIES[name].metric for name in watched}

    def _queries(self, x: WatchTask, watched: Mapping[str, Watched], seconds: int, at: datetime) -> dict[str, str]:
        return {name: resolved(self._selector(x, name), seconds, at) for name in watched}

    def _selector(self, x: WatchTask, name: str) -> str:
        environment = self._config.environment
        engines = [t.id for t in environment.targets if t.kind == "policy_engine"]
        if any(source.kind == "policy_engine" for source in environment.target_sources):
            engines = []  # a query of thousands of names, of a list that changes while the watch lasts: all count
        return selector(x.tenants, engines, QUANTITIES[name])

    async def _expected(self, x: WatchTask) -> dict[str, Expected]:
        """Return the change that was predicted and approved; none where nothing was."""
        if x.evidence is None or not x.strategy.use_expected:
            return {}
        prediction = (await self._service.evidence(x.evidence)).prediction
        if prediction is None:
            return {}
        predicted = Prediction.model_validate(prediction)
        return {name: predicted.expected(name) for name in predicted.quantities}

    async def _left_out(self, until: datetime | None = None) -> Windows:
        """Return the windows in which a release was live that was undone: their traffic is no baseline."""
        releases = await past_releases(self._service)
        windows = []
        for bad in releases:
            if bad.standing not in {Standing.WITHDRAWN, Standing.POISONED}:
                continue
            undone = _undone_at(bad, releases)
            if undone is not None and (until is None or bad.effective_at < until):
                windows.append((bad.effective_at.timestamp(), undone.timestamp()))
        return windows

    async def _again(
        self, x: WatchTask, watched: Mapping[str, Watched], published: datetime, decided_at: datetime
    ) -> dict[str, list[dict[str, Any]] | str]:
        """Read all of baseline and watch once more, for the evidence; the same range whenever it is read."""
        until = min(datetime.now(UTC), decided_at + timedelta(seconds=2 * x.strategy.scrape_seconds))
        seconds = history_seconds(x.strategy) + math.ceil((until - published).total_seconds())
        asked = {metric: resolved(selected, seconds, until) for selected, metric in self._selected(x, watched).items()}
        try:
            # Counted first: what would be left out anyway must neither fill the memory nor delay an undo.
            fits = await self._samples(asked) * LEAST_SAMPLE <= MAX_RAW
            found = await self._ask(x, watched, seconds, until) if fits else {}
        except (UnavailableError, InvalidRequestError) as error:
            return dict.fromkeys(asked, f"not read again: {error.message}")
        if fits and len(await asyncio.to_thread(json.dumps, found)) <= MAX_RAW:
            return dict(found)
        return {
            metric: f"left out: more than {MAX_RAW} bytes; ask Prometheus for {query}"
            for metric, query in asked.items()
        }

    async def _samples(self, asked: Mapping[str, str]) -> float:
        """How many samples some resolved queries select."""
        counted = [await self._metrics.instant(f"sum(count_over_time({query}))") for query in asked.values()]
        try:
            return sum(float(entry["value"][1]) for found in counted for entry in found)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InvalidRequestError("Prometheus counted samples with something that is no number") from error

    async def _blind_evidence(
        self, x: WatchTask, published: datetime, end: datetime, report: WatchReport
    ) -> WatchReport:
        """Store that nothing was seen: a verdict counts by its evidence only, this one too."""
        evidence = WatchEvidence(
            environment=x.environment,
            update_id=x.update_id,
            generation=x.generation,
            strategy=x.strategy,
            test_evidence=x.evidence,
            published_at=published,
            ends_at=end,
            alpha=x.strategy.alpha,
            limit=math.log(1.0 / x.strategy.alpha),
            log_e=(),
            verdict=report.verdict,
            reason=report.detail,
            decided_at=report.decided_at,
            leading="",
            quantities={},
            samples={},
        )
        return report.model_copy(update={"evidence": await beating(self._keep(evidence))})

    async def _keep(self, evidence: WatchEvidence) -> str | None:
        """Store what the verdict rests on; a service that refuses it must not turn an anomaly into an error."""
        data = await asyncio.to_thread(_written, evidence)  # many megabytes, maybe: the heartbeats go on
        try:
            return await self._service.put_blob(data)
        except ContentError:
            if evidence.verdict is Verdict.OK:  # an ok without evidence is none
                raise
            activity.logger.exception("watch_evidence_refused")
            return None


def _written(evidence: WatchEvidence) -> bytes:
    content = evidence.model_dump(mode="json")
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _base(x: WatchTask) -> float:
    """The length that the test was made for: a watch that was extended stays the one that it was."""
    planned = x.strategy.watch_seconds
    return float(planned) if 0 < planned < x.until_seconds else max(x.until_seconds, x.strategy.scrape_seconds)


def _begin(
    matrices: Matrices,
    published: datetime,
    x: WatchTask,
    watched: Mapping[str, Watched],
    left_out: Windows,
) -> FamilyWatch:
    try:
        return FamilyWatch.begin(
            shaped(matrices, watched),
            watched,
            publish_s=published.timestamp(),
            level_s=float(x.strategy.baseline_seconds),
            left_out=left_out,
        )
    except InvalidSeriesError as error:
        raise InvalidRequestError(f"Prometheus answered with something that is no matrix: {error}") from error


def _live(
    before: Matrices, published: datetime, x: WatchTask, watched: Mapping[str, Watched], left_out: Windows
) -> LiveWatch:
    live = LiveWatch(
        before,
        watched,
        published_s=published.timestamp(),
        end_s=published.timestamp() + x.until_seconds,
        level_s=float(x.strategy.baseline_seconds),
        left_out=left_out,
    )
    if x.until_seconds > _base(x):
        live.watch.extend(x.until_seconds - _base(x))
    return live


def _undone_at(bad: Past, releases: Sequence[Past]) -> datetime | None:
    later = [r.effective_at for r in releases if r.generation > bad.generation]
    return min(later, default=None)


async def beating(work: Coroutine[Any, Any, T]) -> T:
    """Await, heartbeating meanwhile: hours of samples take longer to read, judge or store than silence may last."""
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait({task}, timeout=BEAT.total_seconds()))[0]:
            activity.heartbeat({"ticks": 0, "trouble": "a long history to read and judge"})
        return await task
    finally:
        task.cancel()


def pause(live: LiveWatch | None, scrape: float, *, over: bool, blind: bool) -> float:
    """Return the seconds until the next scrape can be judged: an anomaly waits for nothing else."""
    if over:
        return min(scrape, 1.0)
    most = max(min(scrape, 5.0), 0.2)  # a heartbeat is due, and with it the news of a cancel
    if live is None or blind:
        return most
    return min(max(live.due_s() - time.time(), 0.2), most)


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
