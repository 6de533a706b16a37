import json

import numpy as np
import pytest

from constitution.release import Verdict
from constitution.watch.baseline import Baseline
from constitution.watch.spike import SpikeParameters
from constitution.watch.spike_family import SpikeFamily

RATES = {"refused": 10.0, "errors": 2.0, "escalated": 4.0}
WEIGHTS = {"refused": 0.5, "errors": 0.25, "escalated": 0.25}
BOTH = SpikeParameters(direction="both", bake_s=600)


def baselines() -> dict[str, Baseline]:
    rng = np.random.default_rng(3)
    return {
        name: Baseline.of([float(v) for v in rng.poisson(rate * 5, 360)], [5.0] * 360, scrape_interval_s=5.0)
        for name, rate in RATES.items()
    }


def fed(family: SpikeFamily, ratios: dict[str, float], scrapes: int = 120) -> SpikeFamily:
    rng = np.random.default_rng(4)
    for _ in range(scrapes):
        for name, rate in RATES.items():
            family.tests[name].observe(float(rng.poisson(rate * 5 * ratios.get(name, 1.0))), 5.0)
        family.look()
    return family


def test_one_quantity_that_doubles_is_an_anomaly_of_the_family_and_is_named() -> None:
    reading = fed(SpikeFamily.start(baselines(), WEIGHTS, BOTH), {"errors": 2.0}).finish()
    assert reading.verdict is Verdict.ANOMALY
    assert reading.reason.startswith("errors changed by the factor")
    assert reading.max_log_e >= BOTH.limit


def test_all_quiet_is_ok() -> None:
    family = fed(SpikeFamily.start(baselines(), WEIGHTS, BOTH), {})
    assert family.look().verdict is None
    assert family.finish().verdict is Verdict.OK


def test_each_quantity_has_its_share_of_alpha() -> None:
    family = SpikeFamily.start(baselines(), WEIGHTS, BOTH)
    assert {name: test.parameters.alpha for name, test in family.tests.items()} == {
        name: 0.01 * weight for name, weight in WEIGHTS.items()
    }


def test_a_quantity_without_data_keeps_the_family_from_ok() -> None:
    family = SpikeFamily.start(baselines(), WEIGHTS, BOTH)
    rng = np.random.default_rng(4)
    for _ in range(120):
        for name in ("refused", "escalated"):
            family.tests[name].observe(float(rng.poisson(RATES[name] * 5)), 5.0)
    reading = family.finish()
    assert reading.verdict is Verdict.NO_DATA
    assert reading.reason.startswith("errors:")


def test_resumes_from_json_with_the_same_evidence() -> None:
    family = fed(SpikeFamily.start(baselines(), WEIGHTS, BOTH), {"refused": 1.2}, scrapes=20)
    resumed = SpikeFamily.resume(json.loads(json.dumps(family.state())))
    assert fed(family, {"refused": 1.2}).finish() == fed(resumed, {"refused": 1.2}).finish()


@pytest.mark.parametrize("weights", [{}, {"refused": 1.0}, WEIGHTS | {"errors": 0.5}, WEIGHTS | {"errors": 0.0}])
def test_refuses_weights_that_are_no_budget(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="weight"):
        SpikeFamily.start(baselines(), weights, BOTH)
