"""Quantiles of samples, and how they are written."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np


class Summary(TypedDict):
    """Quantiles of one kind of sample, in the samples' own unit. ``p99`` of fewer than 100 is near the maximum."""

    n: int
    min: float
    p50: float
    p99: float
    max: float


def summary(samples: Sequence[float]) -> Summary:
    """Return the quantiles of at least one sample, interpolated linearly."""
    p50, p99 = (float(np.quantile(samples, q)) for q in (0.5, 0.99))
    return Summary(n=len(samples), min=min(samples), p50=p50, p99=p99, max=max(samples))


def ms(seconds: float) -> str:
    """Return seconds as milliseconds with three digits that mean something; from ten seconds on as seconds."""
    if seconds >= 10:
        return f"{seconds:.1f} s"
    value = seconds * 1000
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"
