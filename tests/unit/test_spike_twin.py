"""The vectorised twin of bench/watch decides as the class does, stream by stream."""

import itertools

import numpy as np
import pytest

from bench.watch import streams, twin
from constitution.watch.baseline import Baseline
from constitution.watch.spike import SpikeParameters, SpikeTest
from constitution.watch.spike_family import SpikeFamily


def decided(test: SpikeTest, counts: list[float], exposures: list[float]) -> float:
    """The look at which the class raises its alarm."""
    for look, (count, exposure) in enumerate(zip(counts, exposures, strict=True), start=1):
        test.observe(count, exposure)
        if test.anomalous:
            return float(look)
    return float(np.inf)


NOISES: tuple[streams.Noise, ...] = ("poisson", "nb3", "ar", "drift", "burst before")


@pytest.mark.parametrize(
    ("noise", "ratio", "measure", "min_rate"),
    [
        pytest.param(
            NOISES[n],
            (0.5, 1.0, 1.5)[r],
            ("rate", "share")[m],
            (0.0, 0.05)[s],
            marks=() if (m, s) == ((n + r) % 2, (n // 2 + r) % 2) else pytest.mark.slow,
        )
        for n, r, m, s in itertools.product(range(5), range(3), range(2), range(2))
    ],  # those that are not slow hold each pair of values of any two
)
def test_the_twin_decides_as_the_class_on_every_stream(
    noise: streams.Noise, ratio: float, measure: str, min_rate: float
) -> None:
    runs, before, after = 8, 360, 180
    rng = np.random.default_rng([before, int(ratio * 10), len(noise)])
    counts = streams.counts(
        rng, noise, per_second=2.0, before=before, change=streams.Change(ratio), after=after, runs=runs
    )
    exposures = np.full_like(counts, 5.0)
    if measure == "share":
        exposures = counts + rng.poisson(30.0, counts.shape) + 1.0
    parameters = SpikeParameters(direction="both", bake_s=900.0, min_rate=min_rate)
    many = twin.baselines(counts[:, :before], exposures[:, :before], 5.0)
    expected = twin.alarms(many, counts[:, before:], exposures[:, before:], parameters)
    for row in range(runs):
        one = Baseline.of(
            counts[row, :before].tolist(),
            exposures[row, :before].tolist(),
            scrape_interval_s=5.0,
            measure="share" if measure == "share" else "rate",
        )
        assert np.isclose(one.phi, many.phi[row], rtol=1e-9)
        assert np.isclose(one.nu, many.nu[row], rtol=1e-9)
        assert (one.changing is not None) == many.changing[row]
        test = SpikeTest.start(one, parameters)
        assert decided(test, counts[row, before:].tolist(), exposures[row, before:].tolist()) == expected[row]


@pytest.mark.parametrize(
    ("noise", "ratio"),
    [
        pytest.param(noise, ratio, marks=() if n % 3 == r else pytest.mark.slow)
        for n, noise in enumerate(NOISES)
        for r, ratio in enumerate((0.5, 1.0, 2.0))
    ],
)
def test_the_twin_of_two_quantities_decides_as_the_family(noise: streams.Noise, ratio: float) -> None:
    runs, before = 8, 360
    rng = np.random.default_rng([before, int(ratio * 10), len(noise), 2])
    totals = 1.0 + streams.counts(
        rng, noise, per_second=4.0, before=before, change=streams.Change(ratio), after=180, runs=runs
    )
    refused = rng.binomial(totals.astype(np.int64), 0.1).astype(np.float64)
    seconds = np.full_like(totals, 5.0)
    measured: dict[str, tuple[streams.Array, streams.Array, float]] = {
        "share": (refused, totals, 0.01),
        "rate": (totals, seconds, 0.05),
    }
    parameters = {
        measure: SpikeParameters(direction="both", bake_s=900.0, min_rate=slack)
        for measure, (_, _, slack) in measured.items()
    }
    weights = {"share": 0.1, "rate": 0.9}
    many = []
    for measure, (counts, exposures, _) in measured.items():
        base = twin.baselines(counts[:, :before], exposures[:, :before], 5.0)
        after = counts[:, before:], exposures[:, before:]
        logs = [twin.log_e(way, base, *after, parameters[measure]) for way in ("up", "down")]
        many.append((base, logs, weights[measure]))
    expected = twin.alarms_together(many, parameters["rate"].limit)
    for row in range(runs):
        family = SpikeFamily.start(
            {
                measure: Baseline.of(
                    counts[row, :before].tolist(),
                    exposures[row, :before].tolist(),
                    scrape_interval_s=5.0,
                    measure="share" if measure == "share" else "rate",
                )
                for measure, (counts, exposures, _) in measured.items()
            },
            weights,
            parameters["rate"],
            own=parameters,
        )
        found = np.inf
        for look in range(180):
            for measure, (counts, exposures, _) in measured.items():
                family.tests[measure].observe(counts[row, before + look], exposures[row, before + look])
            family.update()
            if family.alarmed:
                found = look + 1.0
                break
        assert found == expected[row]
