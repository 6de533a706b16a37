"""What Prometheus and a fleet really do to counters, judged by the class itself (no twin): raw samples to verdict.

Four replicas of 5 evaluations a second each, 10 % refused, scraped every 5 s at instants of their own with 10 ms
jitter; one hour before publish, half an hour after it; both directions watched.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.watch.run import SEEDS
from constitution.watch.backtest import BacktestCase, run_case
from constitution.watch.baseline import Measure
from constitution.watch.spike import SpikeParameters

PUBLISH_S = 1_700_000_000.0
BEFORE, AFTER, INTERVAL_S = 720, 360, 5.0
REPLICAS, PER_SECOND, SHARE = 4, 5.0, 0.1
Rng = np.random.Generator
Values = list[list[Any]]


@dataclass(frozen=True)
class Fault:
    """One kind of trouble.

    Attributes:
        name: for the table.
        ratio: of the refused share after the release to that before.
        bend: changes the samples of one series; gets the generator, the replica's number and the samples.
        publish_skew_s: how wrong the clock is that noted publish.
        relabelled: whether every series goes on under one label more from five minutes after publish.
    """

    name: str
    ratio: float
    bend: Callable[[Rng, int, Values], Values]
    publish_skew_s: float = 0.0
    relabelled: bool = False


def unbent(_rng: Rng, _replica: int, values: Values) -> Values:
    """Nothing happens."""
    return values


def restarts(every: int, replicas: int) -> Callable[[Rng, int, Values], Values]:
    """From publish on, some replicas restart every so many scrapes; events since the last scrape are lost."""

    def bend(_rng: Rng, replica: int, values: Values) -> Values:
        if replica >= replicas:
            return values
        found, base, since = [], 0.0, 0
        for i, (t, v) in enumerate(values):
            if t > PUBLISH_S:
                since += 1
                if since % every == 0:
                    base = float(values[i - 1][1])
                    # The restart falls into the interval: half of its events were before it.
                    base += 0.5 * (float(v) - base)
            found.append([t, str(round(float(v) - base))])
        return found

    return bend


def restarted_slowly(replicas: int, scrapes: int) -> Callable[[Rng, int, Values], Values]:
    """Some replicas restart at the same time, a minute after publish, and cannot be scraped meanwhile."""

    def bend(_rng: Rng, replica: int, values: Values) -> Values:
        if replica >= replicas:
            return values
        start = PUBLISH_S + 60
        end = start + scrapes * INTERVAL_S
        base = max((float(v) for t, v in values if t < end), default=0.0)
        return [[t, v if t < start else str(round(float(v) - base))] for t, v in values if not start <= t < end]

    return bend


def lost(part: float) -> Callable[[Rng, int, Values], Values]:
    """Each scrape of each replica fails with this probability."""
    return lambda rng, _replica, values: [v for v in values if rng.random() >= part]


def away(rng: Rng, replica: int, values: Values) -> Values:
    """Prometheus cannot reach one replica for ten minutes, which goes on counting."""
    start = PUBLISH_S + rng.uniform(100, 900)
    return [v for v in values if replica or not start < v[0] < start + 600]


def scaled(_rng: Rng, replica: int, values: Values) -> Values:
    """One replica leaves five minutes after publish, another joins; load moves from one to the other."""
    if replica == 0:
        return [v for v in values if v[0] < PUBLISH_S + 300]
    if replica == REPLICAS:
        first = next((float(v) for t, v in values if t >= PUBLISH_S + 300), 0.0)
        return [[t, str(round(float(v) - first))] for t, v in values if t >= PUBLISH_S + 300]
    return values


def twice(rng: Rng, _replica: int, values: Values) -> Values:
    """A second Prometheus scrapes the same counters two seconds later, under the same labels, NaN now and then."""
    late = [[t + 2.0, v if rng.random() > 0.02 else "NaN"] for t, v in values]
    return values + late


FAULTS: Sequence[Fault] = (
    Fault("none", 1.0, unbent),
    Fault("none, refusals double", 2.0, unbent),
    Fault("rolling restart of all", 1.0, restarts(10_000, REPLICAS)),
    Fault("one replica restarts, 30 s away", 1.0, restarted_slowly(1, 6)),
    Fault("half of the fleet restarts, 15 s away", 1.0, restarted_slowly(2, 3)),
    Fault("half of the fleet restarts, 30 s away", 1.0, restarted_slowly(2, 6)),
    Fault("half of the fleet restarts, 30 s away, refusals double", 2.0, restarted_slowly(2, 6)),
    Fault("a label is added", 1.0, unbent, relabelled=True),
    Fault("a label is added, refusals double", 2.0, unbent, relabelled=True),
    Fault("one replica in a crash loop (40 s)", 1.0, restarts(8, 1)),
    Fault("one replica in a crash loop, refusals double", 2.0, restarts(8, 1)),
    Fault("all replicas in a crash loop (40 s)", 1.0, restarts(8, REPLICAS)),
    Fault("5 % of scrapes fail", 1.0, lost(0.05)),
    Fault("5 % of scrapes fail, refusals double", 2.0, lost(0.05)),
    Fault("one replica unreachable for 10 min", 1.0, away),
    Fault("one replica replaced by another", 1.0, scaled),
    Fault("scraped twice, some NaN", 1.0, twice),
    Fault("publish noted 5 s late, refusals double", 2.0, unbent, 5.0),
    Fault("publish noted 5 s early, refusals double", 2.0, unbent, -5.0),
)


def judge(fault: Fault, measure: Measure, runs: int) -> dict[str, Any]:
    """Verdicts, and the median delay in seconds of the anomalies."""
    verdicts: Counter[str] = Counter()
    delays = []
    for run in range(runs):
        rng = np.random.default_rng([int(SEEDS, 16), len(fault.name), ord(fault.name[-1]), ord(measure[0]), run])
        case = BacktestCase(
            id=run,
            publish_ts=PUBLISH_S + fault.publish_skew_s,
            bake_s=AFTER * INTERVAL_S,
            scrape_interval_s=INTERVAL_S,
            series=_matrix(rng, fault, run),
            measure=measure,
        )
        result = run_case(case, SpikeParameters(direction="both"))
        verdicts[result.verdict.value] += 1
        if result.verdict.value == "anomaly" and result.at is not None:
            delays.append(result.at - PUBLISH_S)
    return {
        "fault": fault.name,
        "measure": measure,
        "runs": runs,
        "verdicts": dict(verdicts),
        "delay_s": float(np.median(delays)) if delays else None,
    }


def _matrix(rng: Rng, fault: Fault, run: int) -> list[dict[str, Any]]:
    n = BEFORE + AFTER
    share = np.full(n, SHARE)
    share[BEFORE:] *= fault.ratio
    scrape = PUBLISH_S + INTERVAL_S * (np.arange(n) - BEFORE)
    found = []
    for replica in range(REPLICAS + (fault.bend is scaled)):
        at = scrape + rng.uniform(0.1, INTERVAL_S - 0.1) + rng.uniform(-0.01, 0.01, n)
        total = rng.poisson(PER_SECOND * INTERVAL_S, n)
        denied = rng.binomial(total, share)
        for decision, events in (("allow", total - denied), ("deny", denied)):
            values: Values = [[float(t), str(int(v))] for t, v in zip(at, np.cumsum(events), strict=True) if v > 0]
            labels: dict[str, str] = {"job": "policy-engine", "instance": f"h{replica}", "decision": decision}
            # Both series of a replica are scraped together, so the same trouble befalls them.
            trouble = np.random.default_rng([int(SEEDS, 16), run, replica])
            bent = fault.bend(trouble, replica, values)
            moment = PUBLISH_S + 300 if fault.relabelled else math.inf
            found.append({"metric": labels, "values": [pair for pair in bent if pair[0] < moment]})
            after = [pair for pair in bent if pair[0] >= moment]
            found += [{"metric": labels | {"team": "risk"}, "values": after}] if after else []
    return found
