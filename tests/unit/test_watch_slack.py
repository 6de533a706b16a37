"""Slack (``min_rate``) widens what is tolerated: harmless streams stay harmless with it, in every direction.

The streams are integers drawn here or constant; the verdicts are those of the backtest, which is the live watch's code.
"""

from typing import Any

import numpy as np
import pytest

from constitution.release import Verdict
from constitution.watch.backtest import BacktestCase, run_case
from constitution.watch.spike import SpikeParameters

PUBLISH = 1_800_000_000
BAKE, BASELINE, SCRAPE = 1800, 3600, 5
BEFORE, AFTER = BASELINE // SCRAPE, BAKE // SCRAPE
HARMLESS = {Verdict.OK, Verdict.CANNOT_TELL}


def series(increments: list[int], first: int = 7, **labels: str) -> dict[str, Any]:
    """One counter that grows by ``increments``, scrape by scrape, the first before publish by the baseline."""
    total, values = first, [[PUBLISH - BASELINE, str(first)]]
    for i, increment in enumerate(increments, start=1):
        total += increment
        values.append([PUBLISH - BASELINE + i * SCRAPE, str(total)])
    return {"metric": {"job": "engine", "instance": "a", **labels}, "values": values}


def judged(measure: str, parameters: SpikeParameters, *entries: dict[str, Any]) -> Verdict:
    case = BacktestCase.model_validate(
        {
            "id": 1,
            "publish_ts": PUBLISH,
            "bake_s": BAKE,
            "scrape_interval_s": SCRAPE,
            "series": list(entries),
            "measure": measure,
        }
    )
    return run_case(case, parameters).verdict


@pytest.mark.parametrize("direction", ["up", "down", "both"])
@pytest.mark.parametrize("min_rate", [0.01, 0.05, 0.1, 5.0])
@pytest.mark.parametrize("every", [0, 4, 1], ids=["never", "every 20 s", "every scrape"])
def test_a_counter_that_goes_on_as_before_is_no_anomaly(direction: str, min_rate: float, every: int) -> None:
    increments = [int(every > 0 and i % every == 0) for i in range(BEFORE + AFTER)]
    parameters = SpikeParameters.model_validate({"direction": direction, "min_rate": min_rate})
    assert judged("rate", parameters, series(increments)) in HARMLESS


@pytest.mark.parametrize("direction", ["down", "both"])
def test_a_fall_beyond_the_slack_is_an_anomaly(direction: str) -> None:
    rng = np.random.default_rng(5)
    increments = [*rng.poisson(3.0 * SCRAPE, BEFORE).tolist(), *rng.poisson(0.3 * SCRAPE, AFTER).tolist()]
    parameters = SpikeParameters.model_validate({"direction": direction, "min_rate": 0.05})
    assert judged("rate", parameters, series(increments)) is Verdict.ANOMALY


@pytest.mark.parametrize("direction", ["up", "both"])
def test_a_rise_beyond_the_slack_is_an_anomaly(direction: str) -> None:
    rng = np.random.default_rng(6)
    increments = [*rng.poisson(0.3 * SCRAPE, BEFORE).tolist(), *rng.poisson(1.5 * SCRAPE, AFTER).tolist()]
    parameters = SpikeParameters.model_validate({"direction": direction, "min_rate": 0.05})
    assert judged("rate", parameters, series(increments)) is Verdict.ANOMALY
