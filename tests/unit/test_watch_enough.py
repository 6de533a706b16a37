"""How much is enough for an ``ok``: what the watch asks for, against what information theory does, and what is found.

The bound is summed term by term from the Poisson distribution, the shares are counted over streams drawn here: nothing
of the test's own formulas is used.
"""

import math

import numpy as np
import pytest

from constitution.release import Verdict
from constitution.watch.backtest import BacktestCase, run_case
from constitution.watch.baseline import Baseline
from constitution.watch.spike import SpikeParameters, SpikeTest

PUBLISH = 1_800_000_000
SCRAPE = 5
BEFORE = 720
PER_SECOND = 0.05
ALPHA, TOLERATED, CHANGE = 0.01, 1.1, 2.0


def bound_s(per_second: float) -> float:
    """Seconds in which a doubling gives ln(1/alpha) nats against the edge of what is tolerated, on average."""
    hour = 3600.0

    def log_probability(k: int, mean: float) -> float:
        return k * math.log(mean) - mean - math.lgamma(k + 1)

    changed, edge = CHANGE * per_second * hour, TOLERATED * per_second * hour
    information = sum(
        math.exp(log_probability(k, changed)) * (log_probability(k, changed) - log_probability(k, edge))
        for k in range(int(changed + 20 * math.sqrt(changed) + 50))
    )
    return hour * math.log(1 / ALPHA) / information


def steady(seconds: float) -> BacktestCase:
    """A counter that moves once in twenty seconds, before publish and after it."""
    scrapes = BEFORE + math.ceil(seconds / SCRAPE) + 1
    values = [[PUBLISH + (i - BEFORE) * SCRAPE, str(1000 + i // 4)] for i in range(scrapes)]
    return BacktestCase(
        id=1,
        publish_ts=PUBLISH,
        bake_s=round(seconds / SCRAPE) * SCRAPE,
        scrape_interval_s=SCRAPE,
        series=[{"metric": {"instance": "a"}, "values": values}],
        measure="rate",
    )


@pytest.mark.parametrize(("bounds", "verdict"), [(1.8, Verdict.CANNOT_TELL), (4.0, Verdict.OK)])
def test_what_would_do_for_one_who_knows_the_rate_does_not_do_for_a_watch(bounds: float, verdict: Verdict) -> None:
    found = run_case(steady(bounds * bound_s(PER_SECOND)), SpikeParameters(direction="both"))
    assert found.verdict is verdict
    assert ("undetectable in this bake" in found.reason) == (verdict is Verdict.CANNOT_TELL)


def test_a_watch_that_could_not_tell_would_have_missed_most_doublings_and_one_that_is_ok_finds_half_at_least() -> None:
    rng = np.random.default_rng(17)
    parameters = SpikeParameters(direction="both", scrape_interval_s=SCRAPE)
    runs, bound = 200, 1.8 * bound_s(PER_SECOND)
    at_the_bound, when_enough, when_twice = 0, 0, 0
    for _ in range(runs):
        counts = rng.poisson(PER_SECOND * SCRAPE, BEFORE).astype(float).tolist()
        base = Baseline.of(counts, [float(SCRAPE)] * BEFORE, scrape_interval_s=SCRAPE)
        test = SpikeTest.start(base, parameters)
        needed = test.needed(CHANGE)
        step, seconds = needed / 20, 0.0
        while seconds < 2 * max(needed, bound) and not test.anomalous:
            test.observe(float(rng.poisson(CHANGE * PER_SECOND * step)), step)
            seconds += step
        alarm = seconds if test.anomalous else math.inf
        at_the_bound += alarm <= bound
        when_enough += alarm <= 1.01 * needed
        when_twice += alarm <= 2.01 * needed
    assert at_the_bound < 0.5 * runs
    assert 0.4 * runs < when_enough < 0.8 * runs
    assert when_twice > 0.8 * runs


@pytest.mark.parametrize(("direction", "word"), [("up", "rise"), ("both", "rise"), ("down", "fall")])
def test_an_ok_names_the_change_that_had_to_show(direction: str, word: str) -> None:
    parameters = SpikeParameters.model_validate({"direction": direction})
    found = run_case(steady(7200.0), parameters)
    assert found.reason == (
        f"watched: the rate only: no change beyond what is tolerated, and a {word} by the factor 2 would have been seen"
    )
