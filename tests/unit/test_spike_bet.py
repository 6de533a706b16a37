import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constitution.watch.bet import (
    Direction,
    coefficients,
    counted_baseline,
    effects,
    likely_ratios,
    log_bet,
    log_sum_exp,
    pay_for_dispersion,
    tilt,
)

PHIS = (1.0, 1.5, 3.0)
DIRECTIONS: tuple[Direction, ...] = ("up", "down")


def log_probabilities(mean: float, phi: float, most: int) -> list[float]:
    """Of a count with this mean and variance/mean: Poisson for phi 1, negative binomial above."""
    if phi == 1.0:
        return [-mean + k * math.log(mean) - math.lgamma(k + 1) for k in range(most)]
    size, p = mean / (phi - 1), (phi - 1) / phi
    return [
        math.lgamma(k + size) - math.lgamma(size) - math.lgamma(k + 1) + k * math.log(p) - size * math.log(phi)
        for k in range(most)
    ]


def expected_bet(direction: Direction, *, rho: float, mean0: float, ratio: float, share: float, phi: float) -> float:
    """E[W] by summation over all baseline and watch counts; the watch is ``share`` of the baseline long."""
    before = log_probabilities(mean0, phi, 8000)
    since = log_probabilities(mean0 * ratio * share, phi, 8000)
    total = 0.0
    for s, theta in coefficients(direction, rho=rho, n0=1.0, t0=1.0, u=share, phi=phi):
        total += sum(math.exp(p - theta * n) for n, p in enumerate(before)) * sum(
            math.exp(p + s * m) for m, p in enumerate(since)
        )
    return total / len(effects(direction))


class TestBet:
    @pytest.mark.parametrize("direction", DIRECTIONS)
    @pytest.mark.parametrize("phi", PHIS)
    @settings(max_examples=8, deadline=None)
    @given(mean0=st.floats(0.3, 60), share=st.floats(0.01, 4), delta=st.floats(0, 1))
    def test_expects_exactly_one_on_the_boundary_whatever_the_rate(
        self, direction: Direction, phi: float, mean0: float, share: float, delta: float
    ) -> None:
        rho = 1 + delta if direction == "up" else 1 / (1 + delta)
        found = expected_bet(direction, rho=rho, mean0=mean0, ratio=rho, share=share, phi=phi)
        assert math.isclose(found, 1.0, rel_tol=1e-6)

    @pytest.mark.parametrize("direction", DIRECTIONS)
    @pytest.mark.parametrize("phi", PHIS)
    def test_expects_less_than_one_inside_the_null_and_more_outside(self, direction: Direction, phi: float) -> None:
        inside, outside = (1.0, 1.5) if direction == "up" else (1.0, 0.5)
        rho = 1.1 if direction == "up" else 1 / 1.1
        assert expected_bet(direction, rho=rho, mean0=30, ratio=inside, share=0.5, phi=phi) < 1.0
        assert expected_bet(direction, rho=rho, mean0=30, ratio=outside, share=0.5, phi=phi) > 1.0

    @given(
        n0=st.integers(0, 10**6),
        share=st.floats(1e-6, 1e4),
        phi=st.floats(1, 1000),
        m=st.integers(0, 10**6),
        more=st.integers(1, 10**6),
        delta=st.floats(0, 10),
        slack=st.floats(0, 10),
    )
    def test_rises_with_the_count_for_up_and_falls_for_down(  # noqa: PLR0917 - one argument per strategy
        self, n0: int, share: float, phi: float, m: int, more: int, delta: float, slack: float
    ) -> None:
        for direction in DIRECTIONS:
            rho = 1 + delta if direction == "up" else 1 / (1 + delta)
            logs = [
                log_bet(direction, rho=rho, n0=n0, t0=1.0, m=count, u=share, phi=phi, slack=slack)
                for count in (m, m + more)
            ]
            assert all(math.isfinite(log) for log in logs)
            assert logs[0] <= logs[1] if direction == "up" else logs[0] >= logs[1]

    @given(q=st.floats(1.0001, 1e4), a=st.floats(1e-9, 1e9), phi=st.floats(1, 1e6))
    def test_the_tilt_exists_everywhere_and_has_the_direction_of_its_alternative(
        self, q: float, a: float, phi: float
    ) -> None:
        s, theta, growth = tilt(q, a, phi)
        assert s > 0 < growth
        assert theta >= 0
        s, theta, growth = tilt(1 / q, a, phi)
        assert s < 0 > growth
        assert theta <= 0

    def test_approaches_the_poisson_bet_as_the_dispersion_vanishes(self) -> None:
        poisson, nearly = (log_bet("up", rho=1.1, n0=300, t0=3600, m=60, u=300, phi=phi) for phi in (1.0, 1.0 + 1e-8))
        assert math.isclose(poisson, nearly, rel_tol=1e-6)

    def test_counts_one_pseudo_event_for_up_only(self) -> None:
        assert counted_baseline("up", 10, 3.0) == 13.0
        assert counted_baseline("down", 10, 3.0) == 10

    def test_no_exposure_is_no_evidence(self) -> None:
        assert log_bet("up", rho=1.1, n0=10, t0=10, m=0, u=0, phi=1) == 0.0


class TestPrice:
    @given(log_e=st.floats(1e-9, 1e4), nu=st.floats(1, 1000))
    def test_never_raises_the_evidence_and_vanishes_with_knowledge(self, log_e: float, nu: float) -> None:
        assert 0 <= pay_for_dispersion(log_e, nu) <= log_e * (1 + 1e-12)
        small = min(log_e, 20.0)
        assert math.isclose(pay_for_dispersion(small, 1e9), small, rel_tol=1e-6, abs_tol=1e-12)

    def test_leaves_evidence_for_the_null_alone(self) -> None:
        assert pay_for_dispersion(-3.0, 8) == -3.0


class TestLikelyRatios:
    @settings(max_examples=50, deadline=None)
    @given(n0=st.integers(1, 10**5), m=st.integers(0, 10**5), share=st.floats(0.01, 10), phi=st.floats(1, 20))
    def test_hold_the_estimate_and_widen_with_smaller_alpha(self, n0: int, m: int, share: float, phi: float) -> None:
        estimate = m / share / n0
        wide = likely_ratios(n0=n0, t0=1.0, m=m, u=share, phi=phi, nu=30, alpha=0.01)
        narrow = likely_ratios(n0=n0, t0=1.0, m=m, u=share, phi=phi, nu=30, alpha=0.2)
        assert wide[0] <= narrow[0] <= estimate * 1.0001
        assert wide[1] >= narrow[1] >= estimate * 0.9999

    def test_are_unbounded_without_data(self) -> None:
        assert likely_ratios(n0=0, t0=0, m=0, u=0, phi=1, nu=10, alpha=0.01) == (0.0, math.inf)

    def test_shrink_with_more_data(self) -> None:
        few = likely_ratios(n0=100, t0=100, m=50, u=50, phi=1, nu=100, alpha=0.01)
        many = likely_ratios(n0=10**4, t0=10**4, m=5000, u=5000, phi=1, nu=100, alpha=0.01)
        assert few[0] < many[0] < 1 < many[1] < few[1]


def test_log_sum_exp_neither_overflows_nor_loses_small_terms() -> None:
    assert log_sum_exp([]) == -math.inf
    assert log_sum_exp([1000.0, 1000.0]) == 1000 + math.log(2)
    assert math.isclose(log_sum_exp([0.0, math.log(1e-9)]), math.log1p(1e-9), rel_tol=1e-6)
