"""The long-run Fano factor: how much noisier a stream of counts is than a Poisson process.

``phi`` = long-run variance of the counts / their mean. Poisson: 1. Independent scrapes with var/mean 3: 3.
Correlated scrapes: the sum of all autocovariances enters, so one number pays for overdispersion and for
autocorrelation alike.

How it is estimated. The counts ``c_i`` (exposure ``x_i``) are detrended by weighted least squares against ``x_i *
(polynomial in time)``: a straight line up to two hours, one degree more per further two hours (at most 4), because
a drift is no noise (undetrended, +10 %/h reads as phi ~ 700). Then the largest of these, and never less than 1:

* Geyer's initial monotone sequence: ``-gamma_0 + 2 * sum(Gamma_m)``, ``Gamma_m = gamma_2m + gamma_2m+1``, cut at
  the first non-positive pair and made non-increasing; degrees of freedom ``n / (2L + 1)`` for ``L`` lags used;
* batch means of 60 s, 180 s and 720 s (whichever gives at least ten batches; with a short baseline a tenth of
  it): ``var(batch residual) / mean batch count``, degrees of freedom = batches less what the detrending took;
* the same of single scrapes: where neighbours are negatively correlated (a failed scrape's events come with the
  next one) the long run is calmer than a single look, and the test looks at every scrape.

``nu`` is the largest degrees of freedom among the long-run estimate that won, Geyer's and the longest batches'.
As ``phi`` is the largest estimate, ``E exp(-c phi_hat / phi)`` (what the bet is charged, bet.py) is at most that
of any *one* estimate that is consistent, so it may be priced as the best known of them. Otherwise a run-on of
Geyer's sequence, which errs upwards already, would be charged twice.

Asymptotic, not proved for finite samples: taking the largest errs upwards. It cannot see correlation
longer than about a fifteenth of the samples; hence six hours of history are better than one (docs/watch.md).
Source: C. Geyer, "Practical Markov Chain Monte Carlo", Statistical Science 7 (1992).

Pure: no clock, no I/O.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

BATCH_SECONDS = (60.0, 180.0, 720.0)  # short noise, noise of minutes, slow modulation (needs two hours of history)
MIN_BATCHES = 10  # fewer would leave under eight degrees of freedom
MAX_LAG = 720  # an hour of 5 s scrapes
LONG = 120  # samples from which on autocovariances are summed up to a third of them, else up to a fifteenth
MAX_DEGREE = 4
SECONDS_PER_DEGREE = 7200.0
MAX_NU = 1000.0  # beyond it the price of estimating phi is below a thousandth of a nat per nat


@dataclass(frozen=True, slots=True)
class Dispersion:
    """The long-run Fano factor and how well it is known.

    Attributes:
        phi: long-run variance / mean, at least 1.
        nu: effective degrees of freedom of ``phi``, at least 1.
        trend_per_hour: fitted linear change of the rate per hour, as a share of its mean (0.1 = +10 %/h).
    """

    phi: float
    nu: float
    trend_per_hour: float


def long_run_fano(
    counts: Sequence[float],
    exposures: Sequence[float],
    scrape_interval_s: float,
) -> Dispersion:
    """Estimate the long-run Fano factor of a stream of counts.

    Args:
        counts: events per scrape interval, oldest first.
        exposures: exposure of each interval (seconds, or total evaluations); intervals without exposure are left out.
        scrape_interval_s: seconds per interval.

    Returns:
        phi, its degrees of freedom and the linear trend. With fewer than four usable intervals, or no events at all:
        phi 1 with one degree of freedom per interval (at least 1).

    Raises:
        ValueError: the two sequences differ in length, or the interval is not positive.
    """
    if len(counts) != len(exposures):
        raise ValueError(f"{len(counts)} counts but {len(exposures)} exposures")
    if scrape_interval_s <= 0:
        raise ValueError(f"the scrape interval must be positive, not {scrape_interval_s}")
    used = [(i, c, x) for i, (c, x) in enumerate(zip(counts, exposures, strict=True)) if x > 0]
    n = len(used)
    total = sum(c for _, c, _ in used)
    if n < 4 or total <= 0:
        return Dispersion(phi=1.0, nu=float(max(1, n - 2)), trend_per_hour=0.0)
    span_s = (used[-1][0] - used[0][0] + 1) * scrape_interval_s
    degree = min(MAX_DEGREE, 1 + int(span_s / SECONDS_PER_DEGREE - 1e-9), n - 2)
    position = [i * scrape_interval_s / 3600.0 for i, _, _ in used]
    residuals, slope = _detrend([c for _, c, _ in used], [x for _, _, x in used], position, degree)
    mean = total / n
    geyer = _geyer(residuals, mean, degree)
    batches = [_batches(residuals, mean, b, degree) for b in batch_lengths(n, scrape_interval_s)]
    phi, nu = max(geyer, *batches)
    nu = max(nu, geyer[1], batches[-1][1])
    phi = max(phi, _batches(residuals, mean, 1, degree)[0])
    rate = total / sum(x for _, _, x in used)
    return Dispersion(
        phi=max(1.0, phi), nu=min(MAX_NU, max(1.0, nu)), trend_per_hour=float(slope / rate) if rate > 0 else 0.0
    )


def batch_lengths(scrapes: int, scrape_interval_s: float) -> list[int]:
    """Batch lengths in scrapes: 1, 3 and 12 minutes where they give ten batches, else a tenth of the samples."""
    lengths = {max(1, round(seconds / scrape_interval_s)) for seconds in BATCH_SECONDS}
    fitting = sorted(length for length in lengths if length > 1 and scrapes // length >= MIN_BATCHES)
    return fitting or [max(1, scrapes // MIN_BATCHES)]


def _detrend(
    counts: list[float], exposures: list[float], position: list[float], degree: int
) -> tuple[list[float], float]:
    """Residuals of ``counts`` against ``exposure * polynomial(position)``, weights 1/exposure; and the linear slope.

    The basis is made orthogonal in the weighted inner product ``sum(exposure * p * q)`` (Gram-Schmidt), which is stable
    for the few degrees used here.
    """
    centre = sum(x * t for x, t in zip(exposures, position, strict=True)) / sum(exposures)
    basis: list[list[float]] = []
    rates = [c / x for c, x in zip(counts, exposures, strict=True)]
    fitted = [0.0] * len(counts)
    slope = 0.0
    for power in range(degree + 1):
        column = [(t - centre) ** power for t in position]
        for earlier in basis:
            norm = sum(x * p * p for x, p in zip(exposures, earlier, strict=True))
            overlap = sum(x * p * q for x, p, q in zip(exposures, earlier, column, strict=True)) / norm
            column = [q - overlap * p for p, q in zip(earlier, column, strict=True)]
        norm = sum(x * p * p for x, p in zip(exposures, column, strict=True))
        if norm <= 0:
            break
        weight = sum(x * p * r for x, p, r in zip(exposures, column, rates, strict=True)) / norm
        if power == 1:
            slope = weight
        fitted = [f + weight * p for f, p in zip(fitted, column, strict=True)]
        basis.append(column)
    return [c - x * f for c, x, f in zip(counts, exposures, fitted, strict=True)], slope


def reach(scrapes: int) -> int:
    """How many autocovariances may be summed."""
    return max(2, min(MAX_LAG, scrapes // 3) if scrapes >= LONG else scrapes // 15)


def _geyer(residuals: list[float], mean: float, degree: int) -> tuple[float, float]:
    """Geyer's initial monotone sequence estimate of the long-run variance / mean, and its degrees of freedom."""
    n = len(residuals)
    variance = sum(r * r for r in residuals) / n
    total, last, lags = -variance, float("inf"), 0
    for lag in range(0, reach(n), 2):
        pair = _autocovariance(residuals, lag) + _autocovariance(residuals, lag + 1)
        if pair <= 0:
            break
        last = min(last, pair)
        total += 2.0 * last
        lags = lag + 1
    total *= n / max(1, n - degree - 1)
    return total / mean, n / (2.0 * lags + 1.0) - degree - 1


def _autocovariance(residuals: list[float], lag: int) -> float:
    """Biased sample autocovariance (divided by n, which keeps the sequence positive definite)."""
    if lag >= len(residuals):
        return 0.0
    return sum(a * b for a, b in zip(residuals, residuals[lag:], strict=False)) / len(residuals)


def _batches(residuals: list[float], mean: float, length: int, degree: int) -> tuple[float, float]:
    """Variance of the sums over batches of ``length`` scrapes / mean batch count, and its degrees of freedom."""
    edges = range(len(residuals) % length, len(residuals) + 1, length)  # the newest scrapes are all used
    sums = [sum(residuals[start:end]) for start, end in pairwise(edges)]
    freedom = len(sums) - 1 - degree
    if freedom < 1:
        return 0.0, 1.0
    centre = sum(sums) / len(sums)
    variance = sum((s - centre) ** 2 for s in sums) / freedom
    return variance / (length * mean), float(freedom)
