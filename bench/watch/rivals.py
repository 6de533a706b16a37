"""What others do, written by us from their documentation, on the same streams. Each gives the look of its first alarm.

* ``static 1.5``, ``static 1.25``: the rate over the last 60 s, once a minute, against a multiple of the baseline's.
  One bad measurement aborts: Argo Rollouts (analysis, ``failureLimit`` 0) and Flagger (``threshold`` 1) by default;
  the factor itself is the user's, 1.25 and 1.5 are ours.
* ``static 1.25, 5 fails``: the same, aborted at the fifth bad minute (Flagger's samples use 5 to 10).
* ``alarm 3 sd``, ``alarm 3 sd 3/5``: AWS AppConfig rolls back when a CloudWatch alarm goes to ALARM; the alarm here is
  the minute's count above mean + 3 standard deviations of the baseline's minutes, for one datapoint or 3 out of 5.
* ``z 3 sd``: the home-made rule: one scrape above mean + 3 standard deviations of the baseline's scrapes.
* ``Kayenta 1 min``, ``Kayenta 5 min``: Mann-Whitney over all scrapes so far against the baseline's, confidence level
  0.98, tolerance 0.25 of the shift's own estimate (MannWhitneyClassifier), which amounts to z > 3.10.
* ``Poisson 5 %``, ``t 5 %``: a fixed-sample test at 5 %, looked at after every scrape (one-sided; normal
  approximation, and Welch's statistic against 1.645).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

MINUTE_S = 60.0
KAYENTA_Z = 2.326 / (1 - 0.25)
ONE_SIDED_5_PERCENT = 1.645


def first(over: NDArray[np.bool_], looks: Array) -> Array:
    """The scrape of the first true look of each row; infinite without one."""
    return np.where(over.any(axis=1), looks[over.argmax(axis=1)], np.inf)


def _minutes(counts: Array, length: int) -> Array:
    whole = counts.shape[1] // length
    return np.asarray(counts[:, : whole * length].reshape(len(counts), whole, length).sum(axis=2))


def static(before: Array, after: Array, length: int, *, factor: float, failures: int) -> Array:
    """A multiple of the baseline's mean, aborted at the given number of bad minutes, not necessarily in a row."""
    bad = _minutes(after, length) > factor * before.mean(axis=1, keepdims=True) * length
    return first(bad.cumsum(axis=1) >= failures, length * (1.0 + np.arange(bad.shape[1])))


def alarm(before: Array, after: Array, length: int, *, datapoints: int, out_of: int) -> Array:
    """``datapoints`` of the last ``out_of`` minutes above mean + 3 sd of the baseline's minutes."""
    minutes = _minutes(before, length)
    limit = minutes.mean(axis=1, keepdims=True) + 3 * minutes.std(axis=1, ddof=1, keepdims=True)
    bad = (_minutes(after, length) > limit).cumsum(axis=1)
    lagged = np.concatenate([np.zeros((len(bad), out_of), dtype=bad.dtype), bad[:, :-out_of]], axis=1)
    return first(bad - lagged >= datapoints, length * (1.0 + np.arange(bad.shape[1])))


def z_score(before: Array, after: Array) -> Array:
    """One scrape above mean + 3 sd."""
    limit = before.mean(axis=1, keepdims=True) + 3 * before.std(axis=1, ddof=1, keepdims=True)
    return first(after > limit, 1.0 + np.arange(after.shape[1]))


def mann_whitney(before: Array, after: Array, every: int) -> Array:
    """Kayenta's classifier at every ``every``-th scrape, on everything since publish; ties corrected."""
    found = np.full(len(before), np.inf)
    n = before.shape[1]
    for row, (old, new) in enumerate(zip(before, after, strict=True)):
        ordered = np.sort(old)
        below = np.searchsorted(ordered, new, "left")
        wins = (below + 0.5 * (np.searchsorted(ordered, new, "right") - below)).cumsum()
        for m in range(every, after.shape[1] + 1, every):
            ties = np.unique(np.concatenate([old, new[:m]]), return_counts=True)[1].astype(float)
            total = n + m
            variance = n * m / 12.0 * (total + 1 - (ties**3 - ties).sum() / (total * (total - 1)))
            if variance > 0 and (wins[m - 1] - n * m / 2.0) / np.sqrt(variance) > KAYENTA_Z:
                found[row] = m
                break
    return found


def fixed_poisson(before: Array, after: Array) -> Array:
    """Difference of two Poisson rates at 5 %, peeked at after every scrape."""
    looks = 1.0 + np.arange(after.shape[1])
    n0, t0 = before.sum(axis=1, keepdims=True), before.shape[1]
    m = after.cumsum(axis=1)
    spread = np.sqrt(m / looks**2 + n0 / t0**2)
    return first((m / looks - n0 / t0) > ONE_SIDED_5_PERCENT * np.maximum(spread, 1e-12), looks)


def fixed_t(before: Array, after: Array) -> Array:
    """Welch's t at 5 %, peeked at after every scrape from the third on."""
    looks = 1.0 + np.arange(after.shape[1])
    mean = after.cumsum(axis=1) / looks
    variance = np.maximum((after**2).cumsum(axis=1) / looks - mean**2, 0) * looks / np.maximum(looks - 1, 1)
    spread = np.sqrt(variance / looks + before.var(axis=1, ddof=1, keepdims=True) / before.shape[1])
    over = (mean - before.mean(axis=1, keepdims=True)) > ONE_SIDED_5_PERCENT * np.maximum(spread, 1e-12)
    over[:, :2] = False
    return first(over, looks)


def all_rivals(interval_s: float) -> dict[str, Callable[[Array, Array], Array]]:
    """Every rival by name, for one scrape interval."""
    minute = max(1, round(MINUTE_S / interval_s))
    return {
        "static 1.5": lambda b, a: static(b, a, minute, factor=1.5, failures=1),
        "static 1.25": lambda b, a: static(b, a, minute, factor=1.25, failures=1),
        "static 1.25, 5 fails": lambda b, a: static(b, a, minute, factor=1.25, failures=5),
        "alarm 3 sd": lambda b, a: alarm(b, a, minute, datapoints=1, out_of=1),
        "alarm 3 sd 3/5": lambda b, a: alarm(b, a, minute, datapoints=3, out_of=5),
        "z 3 sd": z_score,
        "Kayenta 1 min": lambda b, a: mann_whitney(b, a, minute),
        "Kayenta 5 min": lambda b, a: mann_whitney(b, a, 5 * minute),
        "Poisson 5 %": fixed_poisson,
        "t 5 %": fixed_t,
    }
