"""The test of constitution/watch/spike.py once more, over thousands of streams at a time.

Written apart from the class, in numpy, so that a slip in one shows as a difference: tests/unit/test_spike_twin.py
compares their decisions. Restricted to what the simulations need: every scrape observed, no more later starts than
are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from constitution.watch.baseline import CHANGING_ALPHA, CHANGING_STARTS, CHANGING_TOLERANCE
from constitution.watch.bet import DOWN_RATIOS, POISSON_BELOW, UP_RATIOS, Direction
from constitution.watch.dispersion import BATCH_SECONDS, MAX_DEGREE, MAX_NU, MIN_BATCHES, SECONDS_PER_DEGREE, reach
from constitution.watch.spike import IMMEDIATE_WEIGHT, MAX_STARTS, SpikeParameters

Array = NDArray[np.floating[Any]]
NEVER = np.inf


@dataclass(frozen=True)
class Baselines:
    """``constitution.watch.baseline.Baseline`` of many streams: arrays of one length."""

    n0: Array
    t0: Array
    phi: Array
    nu: Array
    changing: NDArray[np.bool_]


def dispersion(counts: Array, exposures: Array, interval_s: float) -> tuple[Array, Array]:
    """``phi`` and ``nu`` of each row."""
    runs, n = counts.shape
    degree = min(MAX_DEGREE, 1 + int(n * interval_s / SECONDS_PER_DEGREE - 1e-9), n - 2)
    residuals = _detrend(counts, exposures, np.arange(n) * interval_s / 3600.0, degree)
    mean = counts.mean(axis=1)
    safe = np.where(mean > 0, mean, 1.0)
    candidates = [_geyer(residuals, safe, degree)]
    lengths = {max(1, round(seconds / interval_s)) for seconds in BATCH_SECONDS}
    fitting = sorted(b for b in lengths if b > 1 and n // b >= MIN_BATCHES) or [max(1, n // MIN_BATCHES)]
    for length in fitting:
        batches = n // length
        sums = residuals[:, n - batches * length :].reshape(runs, batches, length).sum(axis=2)
        freedom = batches - 1 - degree
        variance = ((sums - sums.mean(axis=1, keepdims=True)) ** 2).sum(axis=1) / freedom
        candidates.append((variance / (length * safe), np.full(runs, float(freedom))))
    phis = np.stack([phi for phi, _ in candidates])
    nus = np.stack([nu for _, nu in candidates])
    winner = phis.argmax(axis=0)
    rows = np.arange(runs)
    single = (residuals - residuals.mean(axis=1, keepdims=True)) ** 2
    phi = np.maximum(phis[winner, rows], single.sum(axis=1) / (n - 1 - degree) / safe)
    phi = np.maximum(1.0, phi)
    nu = np.clip(np.maximum(nus[winner, rows], np.maximum(nus[0], nus[-1])), 1.0, MAX_NU)
    empty = mean <= 0
    return np.where(empty, 1.0, phi), np.where(empty, max(1.0, n - 2.0), nu)


def _detrend(counts: Array, exposures: Array, position: Array, degree: int) -> Array:
    centre = (exposures * position).sum(axis=1, keepdims=True) / exposures.sum(axis=1, keepdims=True)
    rates = counts / exposures
    fitted = np.zeros_like(counts)
    basis: list[Array] = []
    for power in range(degree + 1):
        column = (position[None, :] - centre) ** power
        for earlier in basis:
            norm = (exposures * earlier**2).sum(axis=1, keepdims=True)
            column = column - (exposures * earlier * column).sum(axis=1, keepdims=True) / norm * earlier
        norm = (exposures * column**2).sum(axis=1, keepdims=True)
        fitted += (exposures * column * rates).sum(axis=1, keepdims=True) / norm * column
        basis.append(column)
    residuals: Array = counts - exposures * fitted
    return residuals


def _geyer(residuals: Array, mean: Array, degree: int) -> tuple[Array, Array]:
    n = residuals.shape[1]
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(residuals, size, axis=1)
    autocovariance = np.fft.irfft(np.abs(spectrum) ** 2, size, axis=1)[:, :n] / n
    even = np.arange(0, reach(n), 2)
    pairs = autocovariance[:, even] + autocovariance[:, np.minimum(even + 1, n - 1)]
    going = np.logical_and.accumulate(pairs > 0, axis=1)
    total = -autocovariance[:, 0] + 2.0 * (np.minimum.accumulate(pairs, axis=1) * going).sum(axis=1)
    used = going.sum(axis=1)
    lags = np.where(used > 0, 2 * used - 1, 0)
    return total * (n / max(1, n - degree - 1)) / mean, n / (2.0 * lags + 1.0) - degree - 1


def baselines(counts: Array, exposures: Array, interval_s: float, level_s: float = 3600.0) -> Baselines:
    """The baselines of many streams; all of a row gives ``phi``, its end the level."""
    newest = max(1, round(level_s / interval_s))
    phi, nu = dispersion(counts, exposures, interval_s)
    level_c, level_x = counts[:, -newest:], exposures[:, -newest:]
    third = level_c.shape[1] // 3
    if counts.shape[1] > 2 * newest:
        phi1, nu1 = phi, nu
    else:
        phi1, nu1 = dispersion(level_c[:, :third], level_x[:, :third], interval_s)
    n0, t0 = level_c[:, :third].sum(axis=1), level_x[:, :third].sum(axis=1)
    rest_c, rest_x = level_c[:, third:], level_x[:, third:]
    starts = sorted({i * rest_c.shape[1] // CHANGING_STARTS for i in range(CHANGING_STARTS)})
    changing = np.zeros(len(counts), dtype=bool)
    pairs: tuple[tuple[Direction, float], ...] = (("up", CHANGING_TOLERANCE), ("down", 1 / CHANGING_TOLERANCE))
    for direction, rho in pairs:
        logs = np.stack(
            [
                log_w(
                    direction,
                    rho,
                    Baselines(n0, t0, phi1, nu1, changing),
                    rest_c[:, start:].sum(axis=1)[:, None],
                    rest_x[:, start:].sum(axis=1)[:, None],
                )[:, 0]
                for start in starts
            ]
        )
        log_e = _pay(np.logaddexp.reduce(logs, axis=0) - np.log(len(starts)), nu1)
        changing |= log_e >= np.log(2.0 / CHANGING_ALPHA)
    return Baselines(level_c.sum(axis=1), level_x.sum(axis=1), phi, nu, changing)


def coefficients(
    direction: Direction, rho: float, base: Baselines, u: Array, slack: float = 0.0
) -> tuple[Array, Array]:
    """``s`` and ``c`` of ``ln W = s m - c``; shape (runs, looks, effects) for ``u`` of shape (runs, looks)."""
    q = np.array(UP_RATIOS if direction == "up" else DOWN_RATIOS)
    phi = base.phi[:, None, None]
    over = np.maximum(phi - 1.0, 1e-300)
    a = (rho * u / base.t0[:, None])[:, :, None]
    growth = (q - 1.0) / (1.0 + a * q)
    poisson = phi - 1.0 < POISSON_BELOW
    log_growth = np.log1p(growth * (phi - 1.0) / phi)
    y = np.where(poisson, a * growth, np.expm1(a * log_growth) / over)
    s = np.log1p(growth) - log_growth
    growth = np.where(poisson, growth, log_growth / over)
    counted = base.n0 + (base.phi if direction == "up" else 0.0)
    tolerated = slack if direction == "up" else -slack  # added to the rate of the null's boundary; g(s) has its sign
    return s, -np.log1p(-y) * counted[:, None, None] + growth * tolerated * u[:, :, None]


def log_w(direction: Direction, rho: float, base: Baselines, m: Array, u: Array, *, slack: float = 0.0) -> Array:
    """Log of the mixture bet, shape of ``m`` and ``u``: (runs, looks)."""
    s, c = coefficients(direction, rho, base, u, slack)
    return _mix(s, c, m)


def _mix(s: Array, c: Array, m: Array) -> Array:
    x = s * m[:, :, None] - c
    top = x.max(axis=2, keepdims=True)
    mixed: Array = top[:, :, 0] + np.log(np.exp(x - top).mean(axis=2))
    return mixed


def _pay(log_e: Array, nu: Array) -> Array:
    return np.where(log_e <= 0, log_e, 0.5 * nu * np.log1p(2.0 * np.maximum(log_e, 0.0) / nu))


def log_e(direction: Direction, base: Baselines, counts: Array, exposures: Array, p: SpikeParameters) -> Array:
    """The e-process of one direction at every look, shape of ``counts``."""
    looks = counts.shape[1]
    m, u = counts.cumsum(axis=1), exposures.cumsum(axis=1)
    uniform = bool((exposures == exposures[0, 0]).all())
    rho, slack = p.tolerated(direction), p.min_rate
    s, c = coefficients(direction, rho, base, u, slack)
    later = p.later_starts
    if later > MAX_STARTS:
        raise ValueError(f"{later} later starts: the twin keeps them all, the class only {MAX_STARTS}")
    first = IMMEDIATE_WEIGHT if later else 1.0
    terms = np.log(first) + _mix(s, c, m)
    weight = (1.0 - first) / later if later else 0.0
    waiting = np.full(looks, later)
    for k in range(1, later + 1):
        begin = int(np.ceil(k * p.start_spacing_s / p.scrape_interval_s - 1e-9))
        if begin >= looks:
            break
        waiting[begin:] -= 1
        since = m[:, begin:] - m[:, begin - 1 : begin]
        if uniform:
            log_k = _mix(s[:, : looks - begin], c[:, : looks - begin], since)
        else:
            log_k = log_w(direction, rho, base, since, u[:, begin:] - u[:, begin - 1 : begin], slack=slack)
        terms[:, begin:] = np.logaddexp(terms[:, begin:], np.log(weight) + log_k)
    with np.errstate(divide="ignore"):
        terms = np.logaddexp(terms, np.log(weight * waiting)[None, :])
    return _pay(terms, base.nu[:, None])


def alarms(base: Baselines, counts: Array, exposures: Array, p: SpikeParameters) -> Array:
    """The look (1, 2, ...) of each stream's alarm; infinite without one."""
    return alarms_of(base, [log_e(direction, base, counts, exposures, p) for direction in p.directions], p.limit)


def alarms_of(base: Baselines, evidence: Sequence[Array], limit: float) -> Array:
    """The alarms of the average of the e-processes of the watched directions."""
    over = np.logaddexp.reduce(np.stack(evidence), axis=0) - np.log(len(evidence)) >= limit
    found = np.where(over.any(axis=1), over.argmax(axis=1) + 1.0, NEVER)
    return np.where(base.changing, NEVER, found)


def alarms_together(quantities: Sequence[tuple[Baselines, Sequence[Array], float]], limit: float) -> Array:
    """The alarms of several quantities in one budget; each is given as its directions' e-processes and its weight.

    A baseline that was itself changing is silenced: its e-value stays 1.
    """
    each = [
        np.where(base.changing[:, None], 0.0, np.logaddexp.reduce(np.stack(evidence), axis=0) - np.log(len(evidence)))
        + np.log(weight)
        for base, evidence, weight in quantities
    ]
    over = np.logaddexp.reduce(np.stack(each), axis=0) >= limit
    return np.where(over.any(axis=1), over.argmax(axis=1) + 1.0, NEVER)


def interval_missed(base: Baselines, counts: Array, exposures: Array, ratio: float, alpha: float) -> NDArray[np.bool_]:
    """Whether the confidence sequence left out ``ratio`` at any look: one of its two bets refuted it."""
    m, u = counts.cumsum(axis=1), exposures.cumsum(axis=1)
    missed = np.zeros(len(counts), dtype=bool)
    base = replace(base, phi=1.0 + (base.phi - 1.0) * max(1.0, ratio))
    for direction in ("up", "down"):
        log_e = _pay(log_w(direction, ratio, base, m, u), base.nu[:, None])
        missed |= (log_e >= np.log(2.0 / alpha)).any(axis=1)
    return missed
