"""What one update costs, and how large the state is."""

import json
import time
from typing import Any

import numpy as np

from constitution.watch.baseline import Baseline
from constitution.watch.spike import SpikeParameters, SpikeTest


def measure() -> dict[str, Any]:
    """Microseconds of CPU per update over a 30-minute bake, both directions: rate (coefficients recur) and share."""
    rng = np.random.default_rng(11)
    found: dict[str, Any] = {}
    for kind in ("rate", "share"):
        exposures = [5.0] * 720 if kind == "rate" else [float(v) for v in rng.poisson(250, 1080) + 1]
        exposures += [5.0] * (1080 - len(exposures))
        counts = [float(v) for v in rng.poisson(np.array(exposures) * (10 if kind == "rate" else 0.1))]
        base = Baseline.of(
            counts[:720], exposures[:720], scrape_interval_s=5.0, measure="rate" if kind == "rate" else "share"
        )
        test = SpikeTest.start(base, SpikeParameters(direction="both"))
        took = []
        for count, exposure in zip(counts[720:], exposures[720:], strict=True):
            began = time.thread_time()
            test.observe(count, exposure)
            took.append(time.thread_time() - began)
        began = time.thread_time()
        test.reading()
        reading_s = time.thread_time() - began
        found[kind] = {
            "median_us": round(1e6 * float(np.median(took))),
            "p99_us": round(1e6 * float(np.quantile(took, 0.99))),
            "max_us": round(1e6 * max(took)),
            "reading_us": round(1e6 * reading_s),
            "state_bytes": len(json.dumps(test.state())),
            "state_numbers": _numbers(test.state()),
        }
    return found


def _numbers(value: object) -> int:
    if isinstance(value, dict):
        return sum(_numbers(v) for v in value.values())
    if isinstance(value, list):
        return sum(_numbers(v) for v in value)
    return int(isinstance(value, (int, float)))
