"""The changes that a watch can see at today's traffic; shown before publish, so that nobody trusts a blind watch.

Two figures per change. The *information bound*: no test with error ``alpha`` can, on average, see the ratio ``r``
sooner than ``ln(1/alpha) / K`` scrapes, ``K = mu/phi (r ln(r/rho) - (r - rho))`` with ``mu`` expected events per
scrape (Wald; Lorden 1971). And the *typical delay* of our own test: the exposure at which its bet crosses the limit
when the counts come exactly as expected, found by bisection; it pays for the finite baseline, the mixture and the
dispersion.

Pure: no clock, no I/O.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from constitution.watch.baseline import Baseline
from constitution.watch.bet import Direction, log_bet, pay_for_dispersion

MUST_SEE_SHARE = 0.05  # where nothing was refused before, one evaluation in twenty must be seen
LONGEST = 1e4  # watch exposure in baselines: beyond it a finite baseline gives no more evidence
STEPS = 40


@dataclass(frozen=True, slots=True)
class Power:
    """How soon one change would be seen.

    Attributes:
        ratio: the change.
        bound_s: information bound in seconds, at least one scrape; infinite inside the tolerance.
        typical_s: typical delay of this test in seconds, at least one scrape; infinite if it is never seen.
    """

    ratio: float
    bound_s: float
    typical_s: float


def exposure_needed(
    baseline: Baseline, *, direction: Direction, rho: float, slack: float, new_rate: float, limit: float
) -> float:
    """Exposure at which the bet since publish reaches ``limit`` if the rate is ``new_rate`` from publish on.

    Infinite where it never does: inside the tolerance, without a baseline, or because the baseline is too short.
    """
    if not baseline.known:
        return math.inf
    bar = limit
    boundary = rho * baseline.rate + slack if direction == "up" else rho * baseline.rate - slack
    if (new_rate <= boundary) if direction == "up" else (new_rate >= boundary):
        return math.inf

    def evidence(u: float) -> float:
        log_e = log_bet(
            direction,
            rho=rho,
            n0=baseline.n0,
            t0=baseline.t0,
            m=new_rate * u,
            u=u,
            phi=baseline.phi,
            slack=slack,
        )
        return pay_for_dispersion(log_e, baseline.nu)

    low, high = math.log(baseline.t0 * 1e-9), math.log(baseline.t0 * LONGEST)
    if evidence(math.exp(high)) < bar:
        return math.inf
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        if evidence(math.exp(middle)) >= bar:
            high = middle
        else:
            low = middle
    return math.exp(high)


def information_bound(baseline: Baseline, *, ratio: float, rho: float, alpha: float, scrape_interval_s: float) -> float:
    """The information bound in seconds, at least one scrape; infinite inside the tolerance or without events."""
    per_scrape = baseline.rate * baseline.exposure_per_second * scrape_interval_s
    inside = rho >= ratio >= 1 or rho <= ratio <= 1
    if inside or per_scrape <= 0:
        return math.inf
    gain = (ratio * math.log(ratio / rho) if ratio > 0 else 0.0) - (ratio - rho)
    information = per_scrape / baseline.phi * gain
    if information <= 0:
        return math.inf
    return scrape_interval_s * max(1.0, math.log(1.0 / alpha) / information)


def describe_power(powers: Sequence[Power], bake_s: float) -> str:
    """One sentence for a person, e.g. "x2 is seen in about 40 s; x1.2 cannot be seen at this traffic"."""
    parts = []
    for found in powers:
        if math.isinf(found.typical_s):
            parts.append(f"x{found.ratio:g} cannot be seen at this traffic")
        elif found.typical_s > bake_s:
            parts.append(f"x{found.ratio:g} needs {_duration(found.typical_s)} and cannot be seen in this watch")
        else:
            parts.append(f"x{found.ratio:g} is seen in about {_duration(found.typical_s)}")
    return "at today's traffic: " + "; ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
