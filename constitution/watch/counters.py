"""From raw counter samples to events per scrape, the input of the watch.

Input is the ``result`` of a Prometheus matrix (``metric[70m]`` as an instant query), never ``rate()`` or a stepped
range: those extrapolate, overlap and repeat samples, which is built-in autocorrelation. Rules, per series and then
in sum:

* **Grid.** Ticks end at ``origin + k * interval`` (origin: publish). An increment belongs to the tick in which its
  newer sample lies, so replicas scraped at different instants fall into one tick, and feeding live or all at once
  gives the same.
* **Reset** (the value drops): the counter began again at zero, so the new value is the increment; what was lost
  between the last scrape and the restart stays lost (an undercount: conservative for "up"). A drop by less than a
  tenth is no restart but two scrapers out of step: skipped, the higher value stays the reference. For a *rate*, a tick
  in which more than a tenth of the targets that answered restarted is void: too much of its events was lost.
* **New labels.** A series that appears where another of its target (and on its side of the line) has fallen silent is
  that one under new labels, and goes on from its last value; of several the one that shares most labels.
* **Birth.** Another series that appears while its target (job, instance) was already being scraped had no events
  before: it counts from zero, unless it holds more than sixty times what the target counts in a scrape: how it came to
  that nobody saw, so it is a reference only. So is a series of a target that was never seen (a replica joins, or the
  query's window begins).
* **Gap.** No sample at all in a tick: no evidence, and the next one has the longer exposure; exact. One series
  alone out for long while others were seen: of its increment only this tick's part counts for a *rate* (the rest
  belongs to ticks already judged); for a *share* all of it counts, above and below the line.
* **Thin ticks.** When too few of the targets of the last dozen ticks answered, the tick waits for the next one: events
  of the others are still to come. A sum over part of the fleet is no rate, so a rate waits for nine in ten; a share
  for half. A target that stays silent for longer is forgotten.
* **NaN, infinities, negative values, stale markers**: no sample. A value above 2^53 or a time beyond the year 9999
  refuses the whole matrix. **Duplicates** of one instant: the highest value. **Late** samples, older than one already
  used: ignored, their events are in the newer value.
* **Replica leaving**: it stops contributing.

Source: Prometheus HTTP API, "Range vectors"; OpenMetrics 1.0 on counters and resets. Pure: no clock, no I/O.
"""

import math
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

from constitution.errors import InvalidRequestError
from constitution.watch.baseline import Measure
from constitution.watch.bet import LARGEST_EFFECT

Labels = Mapping[str, str]

GLITCH = 0.9  # a value that falls to no less than this share of the last one did not restart
RECENT_TICKS = 12  # a target silent for longer is not waited for
ENOUGH_TARGETS: Mapping[Measure, float] = {"rate": 0.9, "share": 0.5}
MOST_RESTARTED = 0.1  # share of the answering targets; beyond it a tick is no rate
MOST_ALIKE = 1000  # series of one target; among more it is not searched which one goes on under new labels
LARGEST_BURST = LARGEST_EFFECT  # times the target's events per scrape; at least so many events
OUT_OF_PHASE = (0.6, 0.45)  # intervals before and after an instant: within them a series of another scrape has a sample
LARGEST_COUNT = 2.0**53  # above it a float skips integers, and sums of powers overflow
LATEST_S = 253_402_300_799.0  # the end of the year 9999
PHASE_SAMPLES = 16  # the newest samples of each series tell its phase
PARTIAL_GAP = 1.5  # intervals beyond the tick's own exposure before a lone series counts as having been out


class InvalidSeriesError(InvalidRequestError):
    """The input is no Prometheus matrix; the message names the place, e.g. ``series[3].values[17]``."""


@dataclass(frozen=True, slots=True)
class Tick:
    """One scrape interval of the sum over all series.

    Attributes:
        end_s: unix seconds of its end.
        count: events (for ``share``: those that are counted).
        exposure: seconds since the last tick with data (``rate``) or all evaluations (``share``).
        seconds: wall time it covers; 0 if nothing was observed, more than the interval if it closes a gap.
        resets: series that restarted.
        void: so many targets restarted that a rate cannot be told: no count, no exposure, and no evidence.
    """

    end_s: float
    count: float
    exposure: float
    seconds: float
    resets: int = 0
    void: bool = False


@dataclass(slots=True)
class _Series:
    labels: frozenset[tuple[str, str]]
    counted: bool
    pending: list[tuple[float, float]] = field(default_factory=list)
    last_t: float = -math.inf
    last_v: float = math.nan
    born: bool = False
    succeeded: bool = False  # another series went on from it, or it from an unknown one: its first sight is no event


@dataclass(slots=True)
class _Target:
    name: tuple[str, str]
    series: list[_Series] = field(default_factory=list)
    first_t: float = math.inf
    answered: int | None = None  # the last tick that it answered in
    restarted_t: float = -math.inf
    scrapes: int = 0
    events: float = 0.0

    @property
    def largest_birth(self) -> float:
        return LARGEST_BURST * max(1.0, self.events / max(1, self.scrapes))


@dataclass(slots=True)
class _Bin:
    counted: float = 0.0
    total: float = 0.0
    resets: int = 0
    solid: bool = False  # holds more than first sights of joining replicas
    answered: set[tuple[str, str]] = field(default_factory=set)
    restarted: set[tuple[str, str]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Step:
    tick: int
    increment: float
    gap_s: float
    reset: bool
    counted: bool


def refused(labels: Labels) -> bool:
    """Whether a series counts decisions other than ``allow``."""
    return labels.get("decision") != "allow"


def everything(_labels: Labels) -> bool:
    """Every series counts."""
    return True


class CounterGrid:
    """Collects samples and gives them back as ticks, in order, each once. Not thread-safe.

    Args:
        origin_s: unix seconds of a tick's edge; publish, for a watch.
        interval_s: the scrape interval.
        measure: ``rate`` or ``share``.
        counted: which series' events are counted; for ``share`` all series make the exposure.
        oldest_s: samples up to this moment are ignored.

    Raises:
        ValueError: the origin or the interval is no finite number, or the interval is not positive.
    """

    def __init__(
        self,
        *,
        origin_s: float,
        interval_s: float,
        measure: Measure,
        counted: Callable[[Labels], bool] = everything,
        oldest_s: float = 0.0,
    ) -> None:
        if not (math.isfinite(interval_s) and interval_s > 0 and math.isfinite(origin_s)):
            raise ValueError(f"not a scrape grid: origin {origin_s}, interval {interval_s} s")
        self._origin_s = origin_s
        self._interval_s = interval_s
        self._measure: Measure = measure
        self._counted = counted
        self._oldest_s = oldest_s
        self._series: dict[frozenset[tuple[str, str]], _Series] = {}
        self._targets: dict[tuple[str, str], _Target] = {}
        self._next: int | None = None  # the first tick not given yet
        self._last: int | None = None  # the last tick with data

    @property
    def series(self) -> int:
        """How many series were ever seen."""
        return len(self._series)

    def feed(self, matrix: Sequence[Mapping[str, Any]]) -> None:
        """Add the entries of a Prometheus matrix result; samples seen before are ignored.

        Raises:
            InvalidSeriesError: an entry is malformed. Nothing of this matrix is used then.
        """
        for labels, samples in parse_matrix(matrix):
            name = (labels.get("job", ""), labels.get("instance", ""))
            target = self._targets.setdefault(name, _Target(name))
            key = frozenset(labels.items())
            series = self._series.get(key)
            if series is None:
                series = self._series[key] = _Series(labels=key, counted=self._counted(labels))
                target.series.append(series)
            for t, v in samples:
                if t <= max(series.last_t, self._oldest_s):
                    continue
                insort(series.pending, (t, v))
                target.first_t = min(t, target.first_t)

    def ticks(self, until_s: float) -> list[Tick]:
        """The ticks that ended by ``until_s`` and were not given before, beginning with the first one that has data."""
        last = math.floor((until_s - self._origin_s) / self._interval_s + 1e-9)
        if self._next is None:
            first = min((s.pending[0][0] for s in self._series.values() if s.pending), default=None)
            if first is None or self._tick_of(first) > last:
                return []
            self._next = self._tick_of(first)
        if last < self._next:
            return []
        bins = self._collect(last)
        found = [self._tick(k, bins.get(k)) for k in range(self._next, last + 1)]
        self._next = last + 1
        return found

    def _tick_of(self, t: float) -> int:
        return math.ceil((t - self._origin_s) / self._interval_s - 1e-9)

    def _collect(self, last: int) -> dict[int, _Bin]:
        """Take every pending sample up to tick ``last`` into its bin."""
        bins: dict[int, _Bin] = {}
        into = self._thick(last)
        taken = [step for target in self._targets.values() for step in self._take(target, into, bins)]
        if self._last is None and bins:
            bins[min(bins)].solid = True  # the very first tick is what the second one counts from
        bins = {k: found for k, found in bins.items() if found.solid}
        observed = sorted(bins)
        before = {k: (observed[i - 1] if i else self._last) for i, k in enumerate(observed)}
        for step in taken:
            previous = before[step.tick]
            if previous is None:
                continue
            part = 1.0
            exposure_s = (step.tick - previous) * self._interval_s
            if self._measure == "rate" and step.gap_s > exposure_s + PARTIAL_GAP * self._interval_s:
                part = exposure_s / step.gap_s
            found = bins[step.tick]
            found.resets += step.reset
            found.total += step.increment * part
            if step.counted:
                found.counted += step.increment * part
        return bins

    def _thick(self, last: int) -> dict[int, int]:
        """For each tick up to ``last`` with samples, the tick that takes them; those that must wait are left out."""
        targets: dict[int, set[tuple[str, str]]] = {}
        for target in self._targets.values():
            for series in target.series:
                for t, _ in series.pending:
                    tick = self._due(t)
                    if tick > last:
                        break
                    targets.setdefault(tick, set()).add(target.name)
        into: dict[int, int] = {}
        waiting: list[int] = []
        answered: set[tuple[str, str]] = set()
        for tick in sorted(targets):
            waiting.append(tick)
            answered |= targets[tick]
            recent = sum(
                target.answered is not None and target.answered >= tick - RECENT_TICKS
                for name, target in self._targets.items()
                if name not in answered
            )
            if len(answered) >= ENOUGH_TARGETS[self._measure] * (len(answered) + recent):
                into.update(dict.fromkeys(waiting, tick))
                for name in answered:
                    self._targets[name].answered = tick
                waiting, answered = [], set()
        return into

    def _due(self, t: float) -> int:
        """The tick of a sample; the next one to be given if its own was given already."""
        tick = self._tick_of(t)
        return tick if self._next is None else max(tick, self._next)

    def _take(self, target: _Target, into: dict[int, int], bins: dict[int, _Bin]) -> Iterator[_Step]:
        """The increments of one target's series in the ticks that are complete, in time; their bins are opened."""
        due: list[tuple[float, int, float, int]] = []
        coming = [[t for t, _ in series.pending] for series in target.series]
        for i, series in enumerate(target.series):
            number = 0
            for t, v in series.pending:
                tick = into.get(self._due(t))
                if tick is None:
                    break
                number += 1
                due.append((t, i, v, tick))
            del series.pending[:number]
        due.sort()
        for t, samples in groupby(due, key=itemgetter(0)):
            # Duplicates of one instant are sorted by value: the last one is the highest.
            scrape = {i: (v, tick) for _, i, v, tick in samples}
            self._succeed(target, t, scrape, coming)
            target.scrapes += 1
            restarted = False
            for i, (v, tick) in scrape.items():
                series = target.series[i]
                found = bins.setdefault(tick, _Bin())
                found.solid |= series.born or self._known_before(target, t)
                found.answered.add(target.name)
                last_t = series.last_t
                increment, gap_s, reset = self._increment(target, series, t, v)
                target.events += increment
                if reset and last_t < target.restarted_t:
                    gap_s = self._interval_s  # it only comes back after a restart that others have shown, as if born
                elif reset:
                    restarted = True
                    found.restarted.add(target.name)
                if increment > 0 or reset:
                    yield _Step(tick, increment, gap_s, reset, series.counted)
            if restarted:
                target.restarted_t = t

    def _succeed(
        self, target: _Target, t: float, scrape: Mapping[int, tuple[float, int]], coming: Sequence[Sequence[float]]
    ) -> None:
        """Let each series that is new at this instant go on from the most alike one that has fallen silent."""
        new = [target.series[i] for i in scrape if not target.series[i].born]
        if not new or not self._known_before(target, t):
            return
        silent = [
            series
            for i, series in enumerate(target.series)
            if series.born and i not in scrape and self._silent(target, series, t, coming[i])
        ]
        if silent and len(target.series) > MOST_ALIKE:
            for series in new:
                series.succeeded = True  # which of so many it was is not searched: a reference only
            return
        for series in new:
            alike = [old for old in silent if old.counted == series.counted]
            if not alike:
                continue
            old = max(alike, key=lambda one: (len(one.labels & series.labels), one.last_t, one.last_v))
            silent.remove(old)
            series.last_t, series.last_v, series.born = old.last_t, old.last_v, True
            old.born, old.succeeded = False, True

    def _silent(self, target: _Target, series: _Series, t: float, coming: Sequence[float]) -> bool:
        """Whether a series without a sample at this instant has ended; one of another scrape has not."""
        if t - series.last_t > RECENT_TICKS * self._interval_s:
            return False
        if target.name[1]:
            return True
        before, after = (part * self._interval_s for part in OUT_OF_PHASE)
        following = bisect_right(coming, t)
        return t - series.last_t >= before and not (following < len(coming) and coming[following] <= t + after)

    def _increment(self, target: _Target, series: _Series, t: float, v: float) -> tuple[float, float, bool]:
        """Events since the series' last sample, the seconds since then, and whether it restarted."""
        gap_s, reset = t - series.last_t, False
        if not series.born:
            series.born = True
            gap_s = self._interval_s
            counts = self._known_before(target, t) and not series.succeeded and v <= target.largest_birth
            increment = v if counts else 0.0
        elif v >= series.last_v:
            increment = v - series.last_v
        elif v >= GLITCH * series.last_v:
            return 0.0, gap_s, False
        else:
            increment, reset = v, True
        series.last_t, series.last_v = t, v
        return increment, gap_s, reset

    def _known_before(self, target: _Target, t: float) -> bool:
        """Whether the target was scraped before ``t``: series of one scrape share their instant."""
        return target.first_t < t - 0.5 * self._interval_s

    def _tick(self, k: int, found: _Bin | None) -> Tick:
        end_s = self._origin_s + k * self._interval_s
        if found is None:
            return Tick(end_s=end_s, count=0.0, exposure=0.0, seconds=0.0)
        seconds = 0.0 if self._last is None else (k - self._last) * self._interval_s
        self._last = k
        if self._measure == "rate" and len(found.restarted) > MOST_RESTARTED * len(found.answered):
            return Tick(end_s=end_s, count=0.0, exposure=0.0, seconds=seconds, resets=found.resets, void=True)
        exposure = seconds if self._measure == "rate" else found.total
        return Tick(end_s=end_s, count=found.counted, exposure=exposure, seconds=seconds, resets=found.resets)


def grid_origin(matrix: Sequence[Mapping[str, Any]], *, publish_s: float, interval_s: float) -> float:
    """The last tick edge up to publish, of the grid that lies farthest from the instants of the samples.

    Scrapes keep their phase but jitter by milliseconds; an edge amid them would throw neighbours into one tick. So the
    edges are put into the middle of the longest pause. Less than an interval before publish: what was scraped up to
    publish decides the baseline alone, so it is the same whether it is measured at publish or in a backtest.

    Args:
        matrix: Prometheus matrix entries; only samples before publish are looked at.
        publish_s: unix seconds of publish.
        interval_s: the scrape interval.

    Raises:
        InvalidSeriesError: an entry is malformed.
    """
    phases = sorted(
        (t - publish_s) % interval_s
        for _, samples in parse_matrix(matrix)
        for t, _ in [pair for pair in samples if pair[0] <= publish_s][-PHASE_SAMPLES:]
    )
    if not phases:
        return publish_s
    pauses = [(later - earlier, earlier) for earlier, later in pairwise([*phases, phases[0] + interval_s])]
    pause, begins = max(pauses)
    shift = (begins + 0.5 * pause) % interval_s
    return publish_s + (shift - interval_s if shift > 0 else 0.0)


def parse_matrix(matrix: Any) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
    """Check a Prometheus matrix result and give labels and usable samples of each entry.

    Raises:
        InvalidSeriesError: naming the first malformed place.
    """
    if isinstance(matrix, (str, bytes)) or not isinstance(matrix, Sequence):
        raise InvalidSeriesError("series: not a list of Prometheus matrix entries")
    return [_entry(entry, f"series[{i}]") for i, entry in enumerate(matrix)]


def _entry(entry: Any, where: str) -> tuple[dict[str, str], list[tuple[float, float]]]:
    if not isinstance(entry, Mapping):
        raise InvalidSeriesError(f"{where}: not an object")
    if "histograms" in entry or "histogram" in entry:
        raise InvalidSeriesError(f"{where}: a native histogram is no counter; query its _count")
    labels, values = entry.get("metric"), entry.get("values")
    if not isinstance(labels, Mapping) or not all(isinstance(v, str) for v in labels.values()):
        raise InvalidSeriesError(f"{where}.metric: not an object of label names and string values")
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise InvalidSeriesError(f"{where}.values: not a list of [time, value] pairs")
    samples = []
    for j, pair in enumerate(values):
        place = f"{where}.values[{j}]"
        if isinstance(pair, (str, bytes)) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InvalidSeriesError(f"{place}: not a [time, value] pair")
        t = _float(pair[0], f"{place}[0]", "a time in unix seconds")
        v = _float(pair[1], f"{place}[1]", "a number")
        if not abs(t) <= LATEST_S:
            raise InvalidSeriesError(f"{place}[0]: not a time in unix seconds")
        if math.isfinite(v) and v >= 0:
            if v > LARGEST_COUNT:
                raise InvalidSeriesError(f"{place}[1]: {v:g} is no count of events; above 2^53 a counter is not exact")
            samples.append((t, v))
    return dict(labels), samples


def _float(value: Any, where: str, wanted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InvalidSeriesError(f"{where}: not {wanted}")
    try:
        return float(value)
    except (ValueError, OverflowError) as error:
        raise InvalidSeriesError(f"{where}: not {wanted}") from error
