"""The watch's test: did the rate change at or after publish, beyond what is tolerated, at any moment?

Fed one scrape at a time; after each, ``max_log_e >= ln(1/alpha)`` means ``anomaly``. There is no early ``ok``: a
later spike must still be seen.

Null hypothesis. ``rate(t) <= (1 + delta) * expected_up * baseline rate + min_rate`` for all ``t`` ("up"), and
``rate(t) >= baseline rate * expected_down / (1 + delta) - min_rate`` ("down"). The baseline rate is unknown; its
finite sample is paid for. ``delta`` absorbs tolerance and drift together.

The e-process. Per direction, with the bet of constitution/watch/bet.py (an average over 16 effect sizes)::

    e = 1/2 W(since publish) + sum over later starts k of w W(since k),      w = 1/2 / number of later starts

An average of e-processes is an e-process. Starts are one per minute (a bake below 30 minutes: 30 of them, one per
scrape at most): they find a late change 2-15 times sooner. No more than 30 are kept; the least promising one is
dropped, which only lowers ``e``. Then the charge for an estimated dispersion, ``(nu/2) ln(1 + 2 ln(e) / nu)``; both
directions: the average of the two. Several quantities: ``combine`` (a weighted average is an e-value under any
dependence).

What is guaranteed. ``P(anomaly ever | null) <= alpha``: exactly for Poisson counts (Ville's inequality; see bet.py
for the baseline's end effect); with known ``phi`` exact at each single look, its supremum simulated; with an
estimated ``phi`` asymptotic, simulated in docs/watch.md, and weakest when the rate is modulated more slowly than a
fifteenth of the samples that ``phi`` was learnt from. The anytime p-value is ``min(1, exp(-max_log_e))``; ``ci`` is
a confidence sequence for a constant ratio.

Evidence of absence. ``ok`` needs all of: a baseline that is known, stands still and has moved; 80 % of the bake
observed; and exposure enough that a rise by the factor ``must_see`` (a fall, where only falls are watched) would have
raised the alarm at the counts that are then expected, so about every second time. Otherwise ``no_data`` or
``cannot_tell``, with the reason.

Sources: Shin, Ramdas, Rinaldo, "E-detectors" (arXiv 2203.03532), for the sum over starts; Howard, Ramdas, McAuliffe,
Sekhon, Annals of Statistics 2021 (1810.08240), for confidence sequences; bet.py and dispersion.py name theirs.

Pure: ``math`` only; no clock, no I/O. The state is under 100 numbers and survives JSON with the same decisions.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from constitution.model import Model
from constitution.release import Verdict
from constitution.watch.baseline import SHORTEST_SCRAPE_SECONDS, Baseline
from constitution.watch.bet import (
    Coefficients,
    Direction,
    coefficients,
    counted_baseline,
    likely_ratios,
    log_mixture,
    log_sum_exp,
    pay_for_dispersion,
)
from constitution.watch.power import MUST_SEE_SHARE, Power, exposure_needed, information_bound

MAX_STARTS = 30
START_SECONDS = 60.0
IMMEDIATE_WEIGHT = 0.5
MIN_COVERAGE = 0.8
CACHE_ENTRIES = 2048
MAX_SCRAPES = 1_000_000  # a week of scrapes, one a second, and some


class SpikeParameters(Model):
    """What the operator chooses.

    Args:
        alpha: probability of a false alarm over the whole watch, however long.
        delta: relative change that is tolerated (0.1 = 10 %); it must also absorb drift.
        min_rate: absolute slack, in events per unit of exposure (per second, or share of evaluations).
        direction: which change is an anomaly.
        scrape_interval_s: seconds between scrapes.
        bake_s: planned length of the watch in seconds; it may be extended, at no cost but later starts.
        must_see: a change by this factor must be detectable before the absence of an alarm means ``ok``.
        expected_up: predicted upper bound of the ratio, at least 1: a rise up to it is wanted.
        expected_down: predicted lower bound of the ratio, at most 1.
    """

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    delta: Annotated[float, Field(ge=0, le=10)] = 0.10
    min_rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    direction: Literal["up", "down", "both"] = "up"
    scrape_interval_s: Annotated[float, Field(ge=SHORTEST_SCRAPE_SECONDS, le=3600)] = 5.0
    bake_s: Annotated[float, Field(gt=0, le=30 * 86400)] = 1800.0
    must_see: Annotated[float, Field(gt=1, le=1000)] = 2.0
    expected_up: Annotated[float, Field(ge=1, le=1e6)] = 1.0
    expected_down: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _whole_scrapes(self) -> "SpikeParameters":
        if not 1 <= round(self.bake_s / self.scrape_interval_s) <= MAX_SCRAPES:
            raise ValueError(f"a bake has 1 to {MAX_SCRAPES} scrapes, not {self.bake_s / self.scrape_interval_s:g}")
        return self

    @property
    def directions(self) -> tuple[Direction, ...]:
        """One or both, as chosen."""
        return ("up", "down") if self.direction == "both" else (self.direction,)

    def tolerated(self, direction: Direction) -> float:
        """The ratio on the boundary of what is tolerated."""
        if direction == "up":
            return (1.0 + self.delta) * self.expected_up
        return self.expected_down / (1.0 + self.delta)

    @property
    def limit(self) -> float:
        """The log e-value that means ``anomaly``."""
        return math.log(1.0 / self.alpha)

    @property
    def start_spacing_s(self) -> float:
        """Seconds between the moments at which a late change is assumed to begin."""
        return max(self.scrape_interval_s, min(START_SECONDS, self.bake_s / MAX_STARTS))

    @property
    def later_starts(self) -> int:
        """How many such moments after publish the weight is spread over."""
        return max(0, math.ceil(self.bake_s / self.start_spacing_s - 1e-9) - 1)


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of the test at one moment.

    Attributes:
        verdict: None while the watch goes on without an anomaly.
        reason: why, in words for a person.
        log_e: natural log of the e-value now.
        max_log_e: its highest value so far; the decision is made on this.
        p: anytime p-value, ``min(1, exp(-max_log_e))``.
        ratio: rate since publish / baseline rate; None where either is unknown.
        ci: confidence sequence of the ratio at level ``1 - alpha``; its upper end may be infinite.
        coverage: share of the watch that was observed, 0..1.
        at_s: seconds after publish of the decision (end of the scrape that decided, or of the watch); None without one.
        confident: the confidence sequence's upper end is within what is tolerated.
    """

    verdict: Verdict | None
    reason: str
    log_e: float
    max_log_e: float
    p: float
    ratio: float | None
    ci: tuple[float, float]
    coverage: float
    at_s: float | None
    confident: bool


class SpikeTest:
    """One watched quantity, from publish to the end of its watch.

    Build it with :meth:`start` or :meth:`resume`. Not thread-safe.
    """

    def __init__(self, baseline: Baseline, parameters: SpikeParameters) -> None:
        self.baseline = baseline
        self.parameters = parameters
        self._m = 0.0
        self._u = 0.0
        self._elapsed_s = 0.0
        self._covered_s = 0.0
        self._log_e = 0.0
        self._max_log_e = 0.0
        self._alarm_s: float | None = None
        self._begun = 0  # later starts that have begun, kept or dropped
        self._later_starts = parameters.later_starts
        self._spacing_s = parameters.start_spacing_s
        self._starts: list[tuple[float, float]] = []  # (m, u) at each later start that is kept
        self._cache: dict[tuple[Direction, float], Coefficients] = {}

    @classmethod
    def start(cls, baseline: Baseline, parameters: SpikeParameters) -> "SpikeTest":
        """A test at the moment of publish. Without a ``known`` baseline it never bets and ends as ``cannot_tell``."""
        return cls(baseline, parameters)

    def observe(self, count: float, exposure: float, seconds: float | None = None) -> None:
        """Take in one scrape.

        Args:
            count: events since the last scrape that succeeded.
            exposure: seconds (``rate``) or evaluations (``share``) since then; after a gap it is the longer one.
            seconds: wall time since then; by default the exposure (``rate``) or one scrape interval (``share``).

        Raises:
            ValueError: a number is negative or not finite.
        """
        if seconds is None:
            seconds = exposure if self.baseline.measure == "rate" else self.parameters.scrape_interval_s
        if not all(math.isfinite(v) and v >= 0 for v in (count, exposure, seconds)):
            raise ValueError(f"not a scrape: count {count}, exposure {exposure}, {seconds} s")
        self._open_starts(self._elapsed_s)
        self._elapsed_s += seconds
        self._covered_s += seconds
        if exposure <= 0:
            return
        self._m += count
        self._u += exposure
        if not self.baseline.known or self.baseline.changing is not None:
            return
        self._bet()
        if self._alarm_s is None and self._max_log_e >= self.parameters.limit:
            self._alarm_s = self._elapsed_s

    def miss(self, seconds: float | None = None) -> None:
        """Take in a scrape that failed for good: no evidence either way, only less coverage.

        If the next scrape's count will include this interval, do not call this: hand in the longer exposure then.
        """
        self._open_starts(self._elapsed_s)
        self._elapsed_s += self.parameters.scrape_interval_s if seconds is None else seconds

    def extend(self, seconds: float) -> None:
        """Make the watch longer. Valid at any time; no starts are added, as their weights are spent."""
        self.parameters = self.parameters.model_copy(update={"bake_s": self.parameters.bake_s + seconds})

    @property
    def anomalous(self) -> bool:
        """Whether the alarm was raised; it stays raised."""
        return self._alarm_s is not None

    @property
    def log_e(self) -> float:
        """Natural log of the e-value now."""
        return self._log_e

    def reading(self) -> Reading:
        """The test's reading now: ``anomaly``, or no verdict yet."""
        if self._alarm_s is None:
            return self._read(None, "watching", None)
        return self._read(Verdict.ANOMALY, self._anomaly_reason(), self._alarm_s)

    def finish(self, elapsed_s: float | None = None) -> Reading:
        """The verdict at the end of the watch.

        Args:
            elapsed_s: how long the watch really lasted, if longer than what was observed or missed; default: the bake.
        """
        if self._alarm_s is not None:
            return self.reading()
        whole = max(self.parameters.bake_s if elapsed_s is None else elapsed_s, self._elapsed_s)
        verdict, reason = self._closing(whole)
        return self._read(verdict, reason, whole if verdict is Verdict.OK else None, whole)

    def state(self) -> dict[str, Any]:
        """Everything, as JSON values; under 100 numbers. ``resume(json.loads(json.dumps(state)))`` decides the same."""
        return {
            "baseline": asdict(self.baseline),
            "parameters": self.parameters.model_dump(mode="json"),
            "m": self._m,
            "u": self._u,
            "elapsed_s": self._elapsed_s,
            "covered_s": self._covered_s,
            "log_e": self._log_e,
            "max_log_e": self._max_log_e,
            "alarm_s": self._alarm_s,
            "begun": self._begun,
            "later_starts": self._later_starts,
            "spacing_s": self._spacing_s,
            "starts": [list(start) for start in self._starts],
        }

    @classmethod
    def resume(cls, state: Mapping[str, Any]) -> "SpikeTest":
        """The test that :meth:`state` described.

        Raises:
            KeyError: the state lacks a part.
            pydantic.ValidationError: its parameters are not valid.
        """
        test = cls(Baseline(**state["baseline"]), SpikeParameters.model_validate(state["parameters"]))
        test._m, test._u = float(state["m"]), float(state["u"])
        test._elapsed_s, test._covered_s = float(state["elapsed_s"]), float(state["covered_s"])
        test._log_e, test._max_log_e = float(state["log_e"]), float(state["max_log_e"])
        test._alarm_s = None if state["alarm_s"] is None else float(state["alarm_s"])
        test._begun, test._later_starts = int(state["begun"]), int(state["later_starts"])
        test._spacing_s = float(state["spacing_s"])
        test._starts = [(float(m), float(u)) for m, u in state["starts"]]
        return test

    def _open_starts(self, now_s: float) -> None:
        while self._begun < self._later_starts and (self._begun + 1) * self._spacing_s <= now_s + 1e-9:
            self._begun += 1
            self._starts.append((self._m, self._u))

    def _bet(self) -> None:
        """Compute the e-value from the totals; drop the least promising start if there are too many."""
        waiting = self._later_starts - self._begun
        first = IMMEDIATE_WEIGHT if self._later_starts else 1.0
        later = (1.0 - first) / self._later_starts if self._later_starts else 0.0
        best = [-math.inf] * len(self._starts)
        by_direction: list[float] = []
        for direction in self.parameters.directions:
            terms = [math.log(first) + self._log_w(direction, self._m, self._u)]
            for i, (m, u) in enumerate(self._starts):
                log_w = self._log_w(direction, self._m - m, self._u - u)
                best[i] = max(best[i], log_w)
                terms.append(math.log(later) + log_w)
            if waiting:
                terms.append(math.log(later * waiting))
            by_direction.append(pay_for_dispersion(log_sum_exp(terms), self.baseline.nu))
        self._log_e = log_sum_exp(by_direction) - math.log(len(by_direction))
        self._max_log_e = max(self._max_log_e, self._log_e)
        while len(self._starts) > MAX_STARTS:
            least = min(range(len(self._starts)), key=best.__getitem__)
            del self._starts[least], best[least]

    def _log_w(self, direction: Direction, m: float, u: float) -> float:
        if u <= 0:
            return 0.0
        key = (direction, u)
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) >= CACHE_ENTRIES:
                self._cache.clear()
            found = coefficients(
                direction,
                rho=self.parameters.tolerated(direction),
                n0=counted_baseline(direction, self.baseline.n0, self.baseline.phi),
                t0=self.baseline.t0,
                u=u,
                phi=self.baseline.phi,
                slack=self.parameters.min_rate,
            )
            self._cache[key] = found
        return log_mixture(found, m)

    def _read(self, verdict: Verdict | None, reason: str, at_s: float | None, whole_s: float | None = None) -> Reading:
        whole = self._elapsed_s if whole_s is None else whole_s
        ratio = None
        ci = (0.0, math.inf)
        if self.baseline.known and self._u > 0:
            if self.baseline.n0 > 0:
                ratio = (self._m / self._u) / self.baseline.rate
            ci = likely_ratios(
                n0=self.baseline.n0,
                t0=self.baseline.t0,
                m=self._m,
                u=self._u,
                phi=self.baseline.phi,
                nu=self.baseline.nu,
                alpha=self.parameters.alpha,
            )
        return Reading(
            verdict=verdict,
            reason=reason,
            log_e=self._log_e,
            max_log_e=self._max_log_e,
            p=min(1.0, math.exp(-self._max_log_e)),
            ratio=ratio,
            ci=ci,
            coverage=min(1.0, self._covered_s / whole) if whole > 0 else 0.0,
            at_s=at_s,
            confident=ci[1] <= self.parameters.tolerated("up"),
        )

    def _anomaly_reason(self) -> str:
        unit = "per second" if self.baseline.measure == "rate" else "of the evaluations"
        return (
            f"{_number(self._m / self._u)} {unit} since publish, {_number(self.baseline.rate)} before; "
            f"e-value {_number(math.exp(min(700.0, self._max_log_e)))} against a limit of "
            f"{_number(1.0 / self.parameters.alpha)}, reached {_number(self._alarm_s or 0.0)} s after publish"
        )

    def _closing(self, whole_s: float) -> tuple[Verdict, str]:
        """The verdict where no alarm was raised, and why; from the grossest lack to the finest."""
        lack = self._lack_of_data(whole_s)
        if lack is not None:
            return Verdict.NO_DATA, lack
        lack = self._lack_of_baseline() or self._lack_of_power()
        if lack is not None:
            return Verdict.CANNOT_TELL, lack
        return Verdict.OK, f"watched: the {self.baseline.measure} only: {unchanged([self.parameters])}"

    def _lack_of_data(self, whole_s: float) -> str | None:
        if self._u <= 0 and self._covered_s > 0:
            return "nothing was evaluated since publish"
        if self._u <= 0 and self.baseline.scrapes == 0:
            return "the metric is missing: no samples before or since publish"
        if self._u <= 0:
            return "no samples since publish"
        coverage = self._covered_s / whole_s
        if coverage < MIN_COVERAGE - 1e-9:
            return f"only {coverage:.0%} of the watch was observed; {MIN_COVERAGE:.0%} is needed"
        return None

    def _lack_of_baseline(self) -> str | None:
        base, parameters = self.baseline, self.parameters
        if not base.known:
            return f"no baseline: {base.scrapes} usable scrapes before publish"
        if base.changing is not None:
            moving = "rising" if base.changing == "up" else "falling"
            return f"the baseline was already {moving} when it ended at publish"
        if base.measure == "share" and base.rate * parameters.must_see > 1.0 and "up" in parameters.directions:
            return f"the baseline is already burning: at {base.rate:.0%} it cannot grow {parameters.must_see:g} times"
        expected = max(base.rate * parameters.expected_up, base.rate / parameters.must_see + parameters.min_rate)
        if base.measure == "share" and expected * parameters.must_see > 1.0 and "up" in parameters.directions:
            return f"nothing more could be seen: a share of {min(1.0, expected):.0%} is expected, and tolerated"
        return None

    def _lack_of_power(self) -> str | None:
        base, parameters = self.baseline, self.parameters
        if base.measure == "rate" and self._m == 0:
            if base.n0 == 0 and parameters.min_rate == 0:
                return "the counter never moved; a dead counter and a quiet one look the same"
            if base.rate * self._u >= parameters.limit * base.phi:
                return "the counter stopped moving at publish"
        needed = self.needed(parameters.must_see)
        if needed <= self._u:
            return None
        more = "more than any watch" if math.isinf(needed) else f"{needed / self._u:.1f} times the exposure"
        return f"undetectable in this bake: a change by the factor {parameters.must_see:g} would need {more}"

    def needed(self, ratio: float) -> float:
        """Exposure after which a change at publish by ``ratio`` (or its inverse, for "down" alone) is seen."""
        direction: Direction = "down" if self.parameters.direction == "down" else "up"
        factor = 1.0 / ratio if direction == "down" else ratio
        base, parameters = self.baseline, self.parameters
        rate = base.rate * (parameters.expected_up if direction == "up" else parameters.expected_down) * factor
        if direction == "up":
            least = MUST_SEE_SHARE if base.measure == "share" and base.n0 == 0 else 0.0
            rate = max(rate, base.rate + factor * parameters.min_rate, least)
        return exposure_needed(
            base,
            direction=direction,
            rho=parameters.tolerated(direction),
            slack=parameters.min_rate,
            new_rate=rate,
            limit=parameters.limit + math.log(1 / IMMEDIATE_WEIGHT) + math.log(len(parameters.directions)),
        )


def unchanged(watched: Collection[SpikeParameters]) -> str:
    """What an ``ok`` says of tests with these parameters: the change that had to show, and no more than that."""
    ways = " or ".join(sorted({"fall" if p.direction == "down" else "rise" for p in watched}))
    factors = " or ".join(sorted({f"{p.must_see:g}" for p in watched}))
    return f"no change beyond what is tolerated, and a {ways} by the factor {factors} would have been seen"


def power(baseline: Baseline, parameters: SpikeParameters, ratios: Sequence[float] = (2.0, 1.2)) -> tuple[Power, ...]:
    """How soon each change at publish would be seen at the baseline's traffic; to be said before publish.

    Args:
        baseline: the baseline as it is now.
        parameters: of the watch to come. For direction "down" a ratio stands for its inverse.
        ratios: changes, above 1.
    """
    test = SpikeTest(baseline, parameters)
    direction: Direction = "down" if parameters.direction == "down" else "up"
    found = []
    for ratio in ratios:
        typical = test.needed(ratio) / baseline.exposure_per_second if baseline.exposure_per_second > 0 else math.inf
        bound = information_bound(
            baseline,
            ratio=ratio if direction == "up" else 1.0 / ratio,
            rho=parameters.tolerated(direction),
            alpha=parameters.alpha,
            scrape_interval_s=parameters.scrape_interval_s,
        )
        # Seen at the end of a scrape, so whole scrapes.
        scrapes = math.ceil(typical / parameters.scrape_interval_s) if math.isfinite(typical) else math.inf
        found.append(Power(ratio=ratio, bound_s=bound, typical_s=scrapes * parameters.scrape_interval_s))
    return tuple(found)


def combine(log_es: Sequence[float], weights: Sequence[float]) -> float:
    """Log of the weighted average of several e-values: one e-value, whatever their dependence.

    Args:
        log_es: natural logs, all at the same moment.
        weights: not negative, summing to 1.

    Raises:
        ValueError: the weights do not fit.
    """
    if len(log_es) != len(weights):
        raise ValueError(f"{len(log_es)} e-values but {len(weights)} weights")
    if any(w < 0 for w in weights) or abs(sum(weights) - 1.0) > 1e-9:
        raise ValueError("weights must not be negative and must sum to 1")
    return log_sum_exp([e + math.log(w) for e, w in zip(log_es, weights, strict=True) if w > 0])


def _number(value: float) -> str:
    return f"{value:.4g}"
