import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from constitution.release import Verdict
from constitution.watch.baseline import Baseline
from constitution.watch.power import describe_power
from constitution.watch.spike import MAX_STARTS, SpikeParameters, SpikeTest, combine, power


def poisson(seed: int, means: Sequence[float]) -> list[float]:
    return [float(count) for count in np.random.default_rng(seed).poisson(means)]


def baseline(rate: float, *, scrapes: int = 360, interval_s: float = 5.0) -> Baseline:
    counts = poisson(1, [rate * interval_s] * scrapes)
    return Baseline.of(counts, [interval_s] * scrapes, scrape_interval_s=interval_s)


def watch(test: SpikeTest, rate: float, *, scrapes: int, interval_s: float = 5.0, seed: int = 2) -> SpikeTest:
    for count in poisson(seed, [rate * interval_s] * scrapes):
        test.observe(count, interval_s)
    return test


PRODUCTION = SpikeParameters(scrape_interval_s=5, bake_s=1800, direction="both")
DEMO = SpikeParameters(scrape_interval_s=1, bake_s=20, direction="both")


class TestVerdicts:
    def test_a_doubling_is_an_anomaly_within_a_minute(self) -> None:
        test = watch(SpikeTest.start(baseline(10), PRODUCTION), 20, scrapes=12)
        reading = test.reading()
        assert reading.verdict is Verdict.ANOMALY
        assert reading.max_log_e >= PRODUCTION.limit
        assert reading.p <= PRODUCTION.alpha
        assert reading.at_s is not None
        assert reading.at_s <= 60
        assert reading.ratio is not None
        assert 1.5 < reading.ratio < 2.5
        assert reading.ci[0] < 2 < reading.ci[1]

    def test_half_the_rate_is_an_anomaly_for_down_and_both_but_not_for_up(self) -> None:
        found = {
            direction: watch(
                SpikeTest.start(baseline(10), PRODUCTION.model_copy(update={"direction": direction})), 5, scrapes=60
            ).anomalous
            for direction in ("up", "down", "both")
        }
        assert found == {"up": False, "down": True, "both": True}

    def test_the_same_traffic_is_ok_at_the_end_and_says_nothing_before(self) -> None:
        test = watch(SpikeTest.start(baseline(10), PRODUCTION), 10, scrapes=360)
        assert test.reading().verdict is None
        reading = test.finish()
        assert reading.verdict is Verdict.OK
        assert reading.coverage == 1.0
        assert reading.at_s == 1800.0

    def test_a_late_change_is_found(self) -> None:
        test = watch(SpikeTest.start(baseline(10), PRODUCTION), 10, scrapes=300)
        assert not test.anomalous
        assert watch(test, 20, scrapes=12, seed=3).anomalous

    def test_works_with_half_a_minute_of_baseline_and_twenty_seconds_of_watch(self) -> None:
        before = baseline(40, scrapes=30, interval_s=1.0)
        assert watch(SpikeTest.start(before, DEMO), 120, scrapes=20, interval_s=1.0).anomalous
        assert watch(SpikeTest.start(before, DEMO), 40, scrapes=20, interval_s=1.0).finish().verdict is Verdict.OK

    def test_an_alarm_stays_raised(self) -> None:
        test = watch(SpikeTest.start(baseline(10), PRODUCTION), 40, scrapes=6)
        at = test.reading().at_s
        assert watch(test, 1, scrapes=300).finish().verdict is Verdict.ANOMALY
        assert test.finish().at_s == at

    def test_an_expected_rise_is_no_anomaly_and_more_than_expected_is(self) -> None:
        expecting = PRODUCTION.model_copy(update={"expected_up": 2.0})
        assert not watch(SpikeTest.start(baseline(10), expecting), 20, scrapes=360).anomalous
        assert watch(SpikeTest.start(baseline(10), expecting), 40, scrapes=60).anomalous

    def test_the_absolute_slack_tolerates_a_few_events_after_none(self) -> None:
        quiet = Baseline.of([0.0] * 360, [5.0] * 360, scrape_interval_s=5.0)
        for min_rate, found in ((0.0, True), (0.05, False)):
            test = SpikeTest.start(quiet, PRODUCTION.model_copy(update={"min_rate": min_rate}))
            for i in range(120):
                test.observe(1.0 if i % 6 == 0 else 0.0, 5.0)
            assert test.anomalous is found

    def test_zero_before_and_a_burst_of_refusals_after_is_an_anomaly(self) -> None:
        quiet = Baseline.of([0.0] * 360, [50.0] * 360, scrape_interval_s=5.0, measure="share")
        test = SpikeTest.start(quiet, PRODUCTION)
        test.observe(10.0, 50.0)
        assert test.anomalous
        assert test.reading().ratio is None


class TestNeverOkWithoutEvidence:
    def test_no_samples_at_all(self) -> None:
        test = SpikeTest.start(Baseline.of([], [], scrape_interval_s=5.0), PRODUCTION)
        reading = test.finish()
        assert reading.verdict is Verdict.NO_DATA
        assert "missing" in reading.reason
        assert reading.at_s is None

    def test_no_samples_since_publish(self) -> None:
        test = SpikeTest.start(baseline(10), PRODUCTION)
        for _ in range(360):
            test.miss()
        assert test.finish().verdict is Verdict.NO_DATA

    def test_too_little_of_the_watch_observed(self) -> None:
        test = watch(SpikeTest.start(baseline(10), PRODUCTION), 10, scrapes=280)
        reading = test.finish()
        assert reading.verdict is Verdict.NO_DATA
        assert math.isclose(reading.coverage, 280 / 360)
        assert "78%" in reading.reason

    def test_a_gap_that_the_next_scrape_closes_is_covered(self) -> None:
        test = watch(SpikeTest.start(baseline(10), PRODUCTION), 10, scrapes=160)
        test.observe(2000.0, 200.0)
        watch(test, 10, scrapes=160, seed=5)
        assert test.finish().verdict is Verdict.OK
        assert test.finish().coverage == 1.0

    def test_no_baseline(self) -> None:
        test = watch(SpikeTest.start(Baseline.of([], [], scrape_interval_s=5.0), PRODUCTION), 50, scrapes=360)
        assert test.finish().verdict is Verdict.CANNOT_TELL
        assert "no baseline" in test.finish().reason

    @pytest.mark.parametrize(("earlier", "later", "word"), [(10, 40, "rising"), (40, 10, "falling")])
    def test_a_baseline_that_is_already_changing(self, earlier: float, later: float, word: str) -> None:
        counts = poisson(4, [5.0 * (earlier if i < 300 else later) for i in range(360)])
        before = Baseline.of(counts, [5.0] * 360, scrape_interval_s=5.0)
        reading = watch(SpikeTest.start(before, PRODUCTION), later, scrapes=360).finish()
        assert reading.verdict is Verdict.CANNOT_TELL
        assert word in reading.reason

    def test_a_burst_that_was_over_before_publish_is_history(self) -> None:
        counts = poisson(4, [5.0 * (20 if 200 <= i < 212 else 10) for i in range(360)])
        assert Baseline.of(counts, [5.0] * 360, scrape_interval_s=5.0).changing is None

    def test_most_was_refused_already(self) -> None:
        before = Baseline.of([30.0, 31.0, 29.0] * 120, [50.0] * 360, scrape_interval_s=5.0, measure="share")
        test = SpikeTest.start(before, PRODUCTION)
        for _ in range(360):
            test.observe(30.0, 50.0)
        assert test.finish().verdict is Verdict.CANNOT_TELL
        assert "burning" in test.finish().reason

    def test_a_counter_that_never_moved(self) -> None:
        dead = Baseline.of([0.0] * 360, [5.0] * 360, scrape_interval_s=5.0)
        test = SpikeTest.start(dead, PRODUCTION)
        for _ in range(360):
            test.observe(0.0, 5.0)
        assert test.finish().verdict is Verdict.CANNOT_TELL

    def test_a_counter_that_stopped_where_only_rises_are_watched(self) -> None:
        test = SpikeTest.start(baseline(10), PRODUCTION.model_copy(update={"direction": "up"}))
        for _ in range(360):
            test.observe(0.0, 5.0)
        assert test.finish().verdict is Verdict.CANNOT_TELL
        assert "stopped" in test.finish().reason

    def test_nothing_was_evaluated(self) -> None:
        before = Baseline.of([3.0, 2.0, 4.0] * 120, [50.0] * 360, scrape_interval_s=5.0, measure="share")
        test = SpikeTest.start(before, PRODUCTION)
        for _ in range(360):
            test.observe(0.0, 0.0)
        assert test.finish().verdict is Verdict.NO_DATA

    def test_traffic_too_thin_to_see_a_doubling(self) -> None:
        test = watch(SpikeTest.start(baseline(0.01), PRODUCTION), 0.01, scrapes=360)
        assert test.finish().verdict is Verdict.CANNOT_TELL
        assert "undetectable" in test.finish().reason


class TestState:
    @settings(max_examples=30, deadline=None)
    @given(
        seed=st.integers(0, 10**6),
        cut=st.integers(0, 119),
        ratio=st.sampled_from([0.5, 1.0, 1.3, 2.0]),
        direction=st.sampled_from(["up", "down", "both"]),
        measure=st.sampled_from(["rate", "share"]),
    )
    def test_a_round_trip_through_json_changes_nothing(
        self, seed: int, cut: int, ratio: float, direction: Any, measure: Any
    ) -> None:
        exposures = [5.0] * 240 if measure == "rate" else poisson(seed + 1, [30.0] * 240)
        counts = poisson(seed, [x * (1 if i < 120 else ratio) for i, x in enumerate(exposures)])
        before = Baseline.of(counts[:120], exposures[:120], scrape_interval_s=5.0, measure=measure)
        parameters = SpikeParameters(bake_s=600, direction=direction)
        through, resumed = SpikeTest.start(before, parameters), SpikeTest.start(before, parameters)
        for i, (count, exposure) in enumerate(zip(counts[120:], exposures[120:], strict=True)):
            if i == cut:
                resumed = SpikeTest.resume(json.loads(json.dumps(resumed.state())))
            for test in (through, resumed):
                if seed % 7 == i % 7:
                    test.miss()
                else:
                    test.observe(count, exposure)
            assert through.log_e == resumed.log_e
        assert through.finish() == resumed.finish()
        assert through.state() == resumed.state()

    def test_stays_below_a_hundred_numbers_over_a_day(self) -> None:
        day = SpikeParameters(scrape_interval_s=60, bake_s=86400, direction="both")
        test = SpikeTest.start(baseline(1, interval_s=60.0), day)
        watch(test, 1, scrapes=1440, interval_s=60.0)

        def numbers(value: object) -> int:
            if isinstance(value, dict):
                return sum(numbers(v) for v in value.values())
            if isinstance(value, list):
                return sum(numbers(v) for v in value)
            return isinstance(value, (int, float))

        assert len(test.state()["starts"]) == MAX_STARTS
        assert numbers(test.state()) < 100
        assert not test.anomalous
        assert watch(test, 2, scrapes=10, interval_s=60.0, seed=9).anomalous

    def test_extending_adds_time_but_no_starts(self) -> None:
        test = watch(SpikeTest.start(baseline(10), PRODUCTION), 10, scrapes=360)
        test.extend(1800)
        assert test.finish().verdict is Verdict.NO_DATA
        watch(test, 10, scrapes=360, seed=8)
        assert test.finish().verdict is Verdict.OK
        assert len(test.state()["starts"]) == 29


class TestInput:
    @pytest.mark.parametrize("scrape", [(-1.0, 5.0), (1.0, -5.0), (math.nan, 5.0), (1.0, math.inf)])
    def test_refuses_what_is_no_scrape(self, scrape: tuple[float, float]) -> None:
        with pytest.raises(ValueError, match="not a scrape"):
            SpikeTest.start(baseline(1), PRODUCTION).observe(*scrape)

    @pytest.mark.parametrize(
        "wrong",
        [{"alpha": 0}, {"alpha": 0.5}, {"delta": -0.1}, {"min_rate": math.inf}, {"direction": "left"}, {"bake_s": 1}],
    )
    def test_refuses_parameters_out_of_range(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            SpikeParameters(**wrong)

    def test_refuses_a_baseline_of_unequal_lengths_or_negative_counts(self) -> None:
        with pytest.raises(ValueError, match="1 counts but 2"):
            Baseline.of([1.0], [1.0, 1.0], scrape_interval_s=5.0)
        with pytest.raises(ValueError, match="negative"):
            Baseline.of([-1.0], [1.0], scrape_interval_s=5.0)


class TestPower:
    def test_says_how_soon_changes_would_be_seen(self) -> None:
        before = baseline(10)
        double, fifth = power(before, PRODUCTION)
        assert 5.0 <= double.bound_s <= double.typical_s <= 60
        assert double.typical_s < fifth.typical_s
        assert "x2 is seen in about" in describe_power((double, fifth), 1800)

    def test_is_honest_about_thin_traffic_and_about_changes_inside_the_tolerance(self) -> None:
        assert math.isinf(power(baseline(0.01), PRODUCTION, (1.2,))[0].typical_s)
        assert math.isinf(power(baseline(10), PRODUCTION, (1.05,))[0].typical_s)
        text = describe_power(power(baseline(0.01), PRODUCTION, (1.2,)), 1800)
        assert "cannot be seen" in text

    def test_predicts_the_delay_that_then_happens(self) -> None:
        before = baseline(2)
        predicted = power(before, PRODUCTION, (2.0,))[0].typical_s
        delays = []
        for seed in range(15):
            reading = watch(SpikeTest.start(before, PRODUCTION), 4, scrapes=100, seed=seed).reading()
            delays.append(reading.at_s or math.inf)
        assert predicted / 3 <= sorted(delays)[7] <= predicted * 3


class TestCombine:
    def test_is_the_log_of_the_weighted_mean(self) -> None:
        assert math.isclose(combine([math.log(300), 0.0], [0.5, 0.5]), math.log(150.5))

    def test_one_strong_quantity_among_silent_ones_is_enough(self) -> None:
        assert combine([10.0, -50.0, -50.0], [0.4, 0.3, 0.3]) > math.log(100)

    @pytest.mark.parametrize("weights", [[0.5, 0.6], [1.5, -0.5], [1.0]])
    def test_refuses_weights_that_are_no_budget(self, weights: list[float]) -> None:
        with pytest.raises(ValueError, match="weights"):
            combine([0.0, 0.0], weights)
