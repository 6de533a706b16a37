"""The streams: simulated counters before and after a release. Counts per scrape; every generator is seeded.

NB phi: independent negative binomial scrapes, variance/mean ``phi``. AR: Poisson given a lognormal rate of sd 15 %,
lag-1 correlation 0.9 per scrape (47 s); slow AR: sd 10 %, 0.98 (250 s). Drift: +10 %/h. Season: a day of +-40 % and a
week of +-20 %, entered at a random hour. Burst: 60 s at three times the rate, at a random moment of the watch or of
the hour before it. Demo trace: evaluations per second of the demo's agents on a running stack, in bursts, as
``python -m bench.harmless`` recorded them during ten harmless releases; streams are made of them by the moving-block
bootstrap (Künsch 1989), and a change by a whole factor is the sum of so many of them.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Noise = Literal[
    "poisson", "nb1.5", "nb3", "ar", "slow ar", "drift", "season", "burst before", "burst after", "demo trace"
]

AR = {"ar": (0.15, 0.9), "slow ar": (0.10, 0.98)}
FANO = {"nb1.5": 1.5, "nb3": 3.0}
DRIFT_PER_HOUR = 0.10
BURST_SCRAPES = 12
BURST_FACTOR = 3.0
TRACE = Path(__file__).with_name("demo_trace.json")
BLOCK = 20  # scrapes of a second; the agents' bursts last one on average


@dataclass(frozen=True)
class Change:
    """The effect of the release on the rate.

    Attributes:
        ratio: the new rate over the old one.
        at_s: seconds after publish at which it begins.
        ramp_s: seconds over which it grows, linearly; 0: a step.
        share: part of the fleet that it touches.
        added: what is added to the changed rate (below zero: taken away), in events per second or as a share of
            evaluations; no rate falls below zero.
    """

    ratio: float = 1.0
    at_s: float = 0.0
    ramp_s: float = 0.0
    share: float = 1.0
    added: float = 0.0

    def factors(self, scrapes: int, interval_s: float) -> Array:
        """Factor on the mean of each scrape of the watch; a scrape in which it begins is partly changed."""
        edges = np.arange(scrapes + 1) * interval_s - self.at_s
        if self.ramp_s > 0:
            grown = np.where(
                edges < self.ramp_s, np.maximum(edges, 0) ** 2 / (2 * self.ramp_s), edges - self.ramp_s / 2
            )
        else:
            grown = np.maximum(edges, 0.0)
        return np.asarray(1.0 + self.share * (self.ratio - 1.0) * np.diff(grown) / interval_s, dtype=np.float64)


def counts(
    rng: Generator,
    noise: Noise,
    *,
    per_second: float,
    before: int,
    change: Change,
    after: int,
    runs: int,
    interval_s: float = 5.0,
) -> Array:
    """Counts per scrape, shape (runs, before + after)."""
    n = before + after
    if noise == "demo trace":
        return _replayed(rng, before=before, after=after, runs=runs, ratio=change.ratio)
    mean = np.full((runs, n), per_second * interval_s)
    mean[:, before:] = np.maximum(0.0, mean[:, before:] * change.factors(after, interval_s) + change.added * interval_s)
    if noise in AR:
        mean *= _lognormal(rng, sd=AR[noise][0], lag1=AR[noise][1], runs=runs, n=n)
    if noise == "drift":
        mean *= 1.0 + DRIFT_PER_HOUR * np.arange(n) * interval_s / 3600.0
    if noise == "season":
        hours = rng.uniform(0, 168, (runs, 1)) + np.arange(n) * interval_s / 3600.0
        mean *= (1 + 0.4 * np.sin(2 * np.pi * hours / 24)) * (1 + 0.2 * np.sin(2 * np.pi * hours / 168))
    if noise in {"burst before", "burst after"}:
        low, high = (before, n) if noise == "burst after" else (max(0, before - 720), before)
        starts = rng.integers(low, high - BURST_SCRAPES, runs)
        for row, start in enumerate(starts):
            mean[row, start : start + BURST_SCRAPES] *= BURST_FACTOR
    if noise in FANO:
        over = FANO[noise] - 1.0
        return np.asarray(rng.poisson(rng.gamma(np.maximum(mean, 1e-12) / over, over)), dtype=np.float64)
    return rng.poisson(mean).astype(np.float64)


@cache
def trace() -> tuple[Array, str]:
    """Evaluations per second that were recorded, and the digest that names them."""
    counts_ = json.loads(TRACE.read_text(encoding="utf-8"))["counts"]
    return np.array(counts_, dtype=np.float64), hashlib.sha256(json.dumps(counts_).encode()).hexdigest()[:8]


def _replayed(rng: Generator, *, before: int, after: int, runs: int, ratio: float) -> Array:
    if ratio != int(ratio):
        raise ValueError(f"recorded traffic can be doubled, but not changed by the factor {ratio:g}")

    def stream(n: int) -> Array:
        recorded, _ = trace()
        starts = rng.integers(0, len(recorded) - BLOCK + 1, (runs, -(-n // BLOCK)))
        return np.asarray(recorded[starts[:, :, None] + np.arange(BLOCK)].reshape(runs, -1)[:, :n], dtype=np.float64)

    watched = np.sum([stream(after) for _ in range(int(ratio))], axis=0)
    return np.concatenate([stream(before), watched], axis=1)


def _lognormal(rng: Generator, *, sd: float, lag1: float, runs: int, n: int) -> Array:
    """Mean-one lognormal AR(1): coefficient of variation ``sd``."""
    sigma = np.sqrt(np.log1p(sd**2))
    shocks = rng.standard_normal((runs, n))
    level = np.empty((runs, n))
    level[:, 0] = shocks[:, 0]
    scale = np.sqrt(1 - lag1**2)
    for i in range(1, n):
        level[:, i] = lag1 * level[:, i - 1] + scale * shocks[:, i]
    return np.asarray(np.exp(sigma * level - sigma**2 / 2), dtype=np.float64)


def bound_scrapes(noise: Noise, *, per_scrape: float, ratio: float, delta: float = 0.1, alpha: float = 0.01) -> float:
    """Information bound in scrapes, ``max(1, ln(1/alpha) / K)``, with the true long-run Fano factor of the baseline."""
    mu = per_scrape
    if noise in AR:
        sd, lag1 = AR[noise]
        sigma2 = np.log1p(sd**2)
        lags = np.arange(1, 4000)
        phi = 1.0 + mu * (sd**2 + 2 * np.expm1(sigma2 * lag1**lags).sum())
    else:
        phi = FANO.get(noise, 1.0)
    rho = 1.0 + delta
    if ratio < 1:
        rho = 1.0 / rho
    gain = (ratio * np.log(ratio / rho) if ratio > 0 else 0.0) - (ratio - rho)
    information = mu / phi * gain
    return float(max(1.0, np.log(1 / alpha) / information))
