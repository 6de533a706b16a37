"""Whether a quantity stays flat in a soak test: a robust line through its samples, and a limit for its growth.

The line's slope is the median of the slopes of all pairs (Theil), so that a few wild samples move nothing; its 95 %
interval is from Kendall's statistic (Sen, "Estimates of the Regression Coefficient Based on Kendall's Tau",
JASA 63, 1968, equation 2.6). With fewer than `ENOUGH` samples nothing is said.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import median
from typing import Any, Final

ENOUGH: Final = 8
Z: Final = 1.96
WARM: Final = 0.2
"""Of the samples, the first fifth is left out: caches fill, pools open, code is imported."""


@dataclass(frozen=True, slots=True)
class Line:
    """A quantity over a soak test.

    Args:
        n: samples that count.
        first: the median of their first three.
        last: the median of their last three.
        slope: per release.
        low: lower end of the slope's 95 % interval.
        high: its upper end.
        growth: by the line, over all its releases.
        limit: how much growth is still flat.
        verdict: ``flat``, ``grows``, or ``too few samples`` (then there is no line).
    """

    n: int
    first: float
    last: float
    slope: float | None
    low: float | None
    high: float | None
    growth: float | None
    limit: float
    verdict: str

    def as_json(self) -> dict[str, Any]:
        """For the result."""
        return asdict(self)


def line(samples: Sequence[tuple[float, float]], *, releases: int, limit: float, warm: float = WARM) -> Line | None:
    """Fit a quantity; None where it was never sampled.

    Args:
        samples: (releases made so far, value), in order.
        releases: of the whole soak test.
        limit: growth over that many that is still flat; one that may as well be none (interval around 0) is flat too.
        warm: part of the samples that is left out at the beginning.
    """
    kept = list(samples)[int(len(samples) * warm) :]
    if not kept:
        return None
    values = [value for _, value in kept]
    first, last = median(values[:3]), median(values[-3:])
    slopes = sorted((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(kept, 2) if b[0] > a[0])
    if len(kept) < ENOUGH:
        return Line(len(kept), first, last, None, None, None, None, limit, "too few samples")
    n = len(kept)
    spread = Z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = slopes[max(0, math.floor((len(slopes) - spread) / 2) - 1)]
    high = slopes[min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))]
    slope = median(slopes)
    growth = slope * releases
    verdict = "grows" if low > 0 and growth > limit else "flat"
    return Line(n, first, last, slope, low, high, growth, limit, verdict)


def longest(samples: Sequence[tuple[int, float, float]]) -> list[tuple[float, float]]:
    """Return the samples of the process that lived longest: one that was killed begins anew with little memory.

    Args:
        samples: (process id, releases made so far, value), in order.
    """
    lives: dict[int, list[tuple[float, float]]] = {}
    for pid, at, value in samples:
        lives.setdefault(pid, []).append((at, value))
    return max(lives.values(), key=len, default=[])
