"""Absolute slack, both ways, by another road than the bet's own formula: brute force over every outcome.

The null of "up" is ``rate <= rho * base + slack``, of "down" ``rate >= rho * base - slack``, and no rate is below zero.
A bet is fair if its mean is at most 1 for every rate inside the null, and worth making if it is above 1 far outside.
The means are sums over counts with their probabilities; nothing here knows a tilt.
"""

import itertools
import math

import pytest

from constitution.watch.baseline import Baseline
from constitution.watch.bet import Direction, log_bet
from constitution.watch.spike import SpikeParameters, SpikeTest

DIRECTIONS: tuple[Direction, ...] = ("up", "down")
PHIS = (1.0, 1.5, 3.0)
RARE = 1e-15


def probabilities(mean: float, phi: float) -> list[float]:
    """Of the counts 0, 1, ... with this mean and variance/mean, up to where what is left is negligible."""
    if mean == 0:
        return [1.0]
    found, left = [], 1.0
    size, p = (mean / (phi - 1), (phi - 1) / phi) if phi > 1 else (0.0, 0.0)
    term = math.exp(-mean) if phi == 1 else phi**-size
    for k in itertools.count():
        found.append(term)
        left -= term
        if k > mean and (left < RARE or term < RARE):
            return found
        term *= mean / (k + 1) if phi == 1 else (size + k) / (k + 1) * p
    raise AssertionError  # not reached: the loop is endless


def boundary(direction: Direction, base: float, rho: float, slack: float) -> float:
    """The rate at which the null ends, as its definition says."""
    return rho * base + slack if direction == "up" else max(0.0, rho * base - slack)


def mean_bet(
    direction: Direction, base: float, rate: float, *, rho: float, slack: float, u: float, phi: float
) -> float:
    """E[W] over every baseline of length 1 and every watch of length ``u``."""
    watch = probabilities(rate * u, phi)
    return sum(
        p * q * math.exp(log_bet(direction, rho=rho, n0=n, t0=1.0, m=m, u=u, phi=phi, slack=slack))
        for n, p in enumerate(probabilities(base, phi))
        for m, q in enumerate(watch)
    )


class TestFairness:
    @pytest.mark.parametrize("phi", PHIS)
    @pytest.mark.parametrize("direction", DIRECTIONS)
    @pytest.mark.parametrize("slack", [0.0, 0.3, 2.0])
    @pytest.mark.parametrize("base", [0.2, 4.0])
    def test_expects_at_most_one_everywhere_inside_the_null(
        self, phi: float, direction: Direction, slack: float, base: float
    ) -> None:
        rho = 1.1 if direction == "up" else 1 / 1.1
        edge = boundary(direction, base, rho, slack)
        inside = [edge, base, edge / 2] if direction == "up" else [edge, base, 2 * base + 1]
        for rate in inside:
            assert mean_bet(direction, base, rate, rho=rho, slack=slack, u=0.7, phi=phi) <= 1.0 + 1e-9, rate

    @pytest.mark.parametrize("phi", PHIS)
    @pytest.mark.parametrize("direction", DIRECTIONS)
    def test_expects_more_than_one_far_outside(self, phi: float, direction: Direction) -> None:
        base, slack = 9.0, 1.0
        rho = 1.1 if direction == "up" else 1 / 1.1
        rate = 3 * boundary(direction, base, rho, slack) if direction == "up" else 0.0
        assert mean_bet(direction, base, rate, rho=rho, slack=slack, u=1.5, phi=phi) > 1.0

    @pytest.mark.parametrize("direction", DIRECTIONS)
    def test_more_slack_is_never_more_evidence(self, direction: Direction) -> None:
        rho = 1.1 if direction == "up" else 1 / 1.1
        for n, m, u, phi in itertools.product((0, 3, 40), (0, 2, 50), (0.01, 1.0, 10.0), PHIS):
            bets = [
                log_bet(direction, rho=rho, n0=n, t0=1.0, m=m, u=u, phi=phi, slack=slack)
                for slack in (0.0, 0.01, 0.5, 5.0)
            ]
            assert bets == sorted(bets, reverse=True), (n, m, u, phi)

    def test_a_rate_that_the_slack_tolerates_down_to_zero_is_never_refuted(self) -> None:
        for u in (1.0, 100.0, 1e6):  # one event in 3,600 s before, 0.05/s tolerated, none for ever after
            assert log_bet("down", rho=1 / 1.1, n0=1, t0=3600.0, m=0, u=u, phi=1.0, slack=0.05) <= 0.0


class TestWholeTest:
    """The probability of an alarm of :class:`SpikeTest`, exactly: every baseline, every scrape, every look."""

    SCRAPES = 3
    ALPHA = 0.2  # so large that few events decide, and every outcome can be listed

    def alarm_probability(self, base: float, rate: float, direction: str, slack: float) -> float:
        """Over all baselines of exposure 12 and all counts of three scrapes of one second each."""
        parameters = SpikeParameters(
            alpha=self.ALPHA, delta=0.1, min_rate=slack, direction=direction, scrape_interval_s=1.0, bake_s=self.SCRAPES
        )
        scrape = [(m, p) for m, p in enumerate(probabilities(rate, 1.0)) if p > 1e-7]
        total = 0.0
        for n0, p0 in enumerate(probabilities(12 * base, 1.0)):
            if p0 < 1e-6:
                continue
            baseline = Baseline(n0=n0, t0=12.0, phi=1.0, nu=1e9, scrapes=12, seconds=12.0)
            total += p0 * self._alarms(SpikeTest.start(baseline, parameters).state(), scrape, self.SCRAPES)
        return total

    def _alarms(self, state: dict[str, object], scrape: list[tuple[int, float]], left: int) -> float:
        if left == 0:
            return 0.0
        found = 0.0
        for m, p in scrape:
            test = SpikeTest.resume(state)
            test.observe(float(m), 1.0)
            found += p if test.anomalous else p * self._alarms(test.state(), scrape, left - 1)
        return found

    @pytest.mark.parametrize(
        ("base", "rate", "direction", "slack"),
        [
            (0.3, 0.0, "down", 0.3),  # tolerated down to nothing
            (0.3, 0.3, "both", 0.2),
            (0.5, 0.5 / 1.1 - 0.2, "down", 0.2),  # on the boundary
            (0.3, 0.3 * 1.1 + 0.2, "up", 0.2),  # on the boundary
            (0.5, 0.5 / 1.1 - 0.2, "both", 0.2),
        ],
    )
    def test_alarms_at_most_as_often_as_its_budget_says(
        self, base: float, rate: float, direction: str, slack: float
    ) -> None:
        assert self.alarm_probability(base, rate, direction, slack) <= self.ALPHA

    def test_sees_a_stop_that_the_slack_does_not_tolerate(self) -> None:
        assert self.alarm_probability(3.0, 0.0, "down", 0.2) > 0.9
