import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constitution.watch.baseline import Measure
from constitution.watch.counters import CounterGrid, InvalidSeriesError, Tick, grid_origin, parse_matrix, refused

T0 = 1_000_000.0


def series(values: Sequence[object], *, start: float = T0, step: float = 5.0, **labels: str) -> dict[str, Any]:
    """A matrix entry with a value every step; None is a scrape that failed."""
    return {
        "metric": labels,
        "values": [[start + i * step, str(v)] for i, v in enumerate(values) if v is not None],
    }


def ticks(matrix: list[dict[str, Any]], *, measure: Measure = "rate", until: float = T0 + 1000) -> list[Tick]:
    """Ticks of 5 s whose edges lie in the middle between scrapes at T0, T0 + 5, ...; trailing empty ones left out."""
    if measure == "share":
        grid = CounterGrid(origin_s=T0 + 2.5, interval_s=5.0, measure=measure, counted=refused)
    else:
        grid = CounterGrid(origin_s=T0 + 2.5, interval_s=5.0, measure=measure)
    grid.feed(matrix)
    found = grid.ticks(until)
    while found and found[-1].seconds == 0:
        found.pop()
    return found


def counts(matrix: list[dict[str, Any]]) -> list[float]:
    return [tick.count for tick in ticks(matrix)]


def relabelled(entry: dict[str, Any], at: int) -> list[dict[str, Any]]:
    """The same counter under one label more from a sample on; itself where it has fewer samples."""
    values = entry["values"]
    parts = [(entry["metric"], values[:at]), (entry["metric"] | {"team": "risk"}, values[at:])]
    return [{"metric": labels, "values": part} for labels, part in parts if part]


class TestIncrements:
    def test_are_the_differences_of_the_samples(self) -> None:
        assert counts([series([10, 13, 13, 20])]) == [0, 3, 0, 7]

    def test_of_replicas_scraped_at_other_instants_fall_into_one_tick(self) -> None:
        matrix = [series([0, 1, 2], instance="a"), series([0, 10, 20], start=T0 + 2, instance="b")]
        assert counts(matrix) == [0, 11, 11]

    def test_a_reset_counts_from_zero(self) -> None:
        found = ticks([series([100, 110, 4, 9], decision="deny")], measure="share")
        assert [tick.count for tick in found] == [0, 10, 4, 5]
        assert [tick.resets for tick in found] == [0, 0, 1, 0]

    def test_a_tick_in_which_more_than_a_tenth_of_the_fleet_restarted_is_no_rate(self) -> None:
        for replicas, void in ((1, True), (2, True), (9, True), (10, False), (20, False)):
            steady = [series([100, 110, 120, 130, 140], instance=str(i)) for i in range(1, replicas)]
            found = ticks([series([100, 110, 4, 14, 24], instance="0"), *steady])
            assert [tick.void for tick in found] == [False, False, void, False, False]
            assert [tick.resets for tick in found] == [0, 0, 1, 0, 0]
            assert (found[2].count, found[2].exposure) == ((0, 0) if void else (10 * replicas - 6, 5))
            assert [(t.count, t.exposure) for t in found[3:]] == [(10 * replicas, 5)] * 2

    def test_series_that_come_back_one_by_one_after_a_restart_are_one_restart(self) -> None:
        matrix = [
            series([100, 110, 4, 14, 24, 34], instance="a", decision="allow"),
            series([50, 60, None, 1, 2, 3], instance="a", decision="deny"),
            series([50, 60, None, None, 1, 2], instance="a", decision="require_approval"),
        ]
        found = ticks(matrix)
        assert [tick.void for tick in found] == [False, False, True, False, False, False]
        assert [tick.count for tick in found] == [0, 30, 0, 11, 12, 12]

    def test_two_scrapers_out_of_step_are_no_reset(self) -> None:
        assert counts([series([1_000_000, 1_000_010, 1_000_007, 1_000_020])]) == [0, 10, 0, 10]

    def test_a_series_born_at_its_first_event_counts_from_zero(self) -> None:
        matrix = [
            series([5, 6, 7, 8], instance="a", decision="allow"),
            series([None, None, 3, 4], instance="a", decision="deny"),
        ]
        assert counts(matrix) == [0, 1, 4, 2]

    def test_the_first_sight_of_a_joining_replica_is_only_a_reference(self) -> None:
        matrix = [series([5, 6, 7, 8], instance="a"), series([None, None, 9000, 9001], instance="b")]
        assert counts(matrix) == [0, 1, 1, 2]

    def test_a_leaving_replica_just_stops_contributing(self) -> None:
        matrix = [series([0, 1, 2, 3], instance="a"), series([0, 10, None, None], instance="b")]
        assert [tick.count for tick in ticks(matrix, measure="share")] == [0, 11, 1, 1]

    @pytest.mark.parametrize("lie", ["NaN", "+Inf", "-Inf", "-5"])
    def test_what_is_no_value_is_no_sample(self, lie: str) -> None:
        found = ticks([series([1, 2, lie, 6])])
        assert [tick.count for tick in found] == [0, 1, 0, 4]
        assert [tick.seconds for tick in found] == [0, 5, 0, 10]

    def test_duplicates_of_one_instant_count_once(self) -> None:
        entry = series([1, 2, 3])
        entry["values"] += [[T0 + 5, "2"], [T0 + 10, "1"]]
        assert counts([entry, series([1, 2, 3])]) == [0, 1, 1]

    def test_samples_in_any_order_give_the_same(self) -> None:
        entry = series([1, 2, 30, 31])
        entry["values"].reverse()
        assert counts([entry]) == [0, 1, 28, 1]

    @given(
        steps=st.lists(st.integers(0, 50), min_size=2, max_size=60),
        restarts=st.sets(st.integers(1, 58)),
        lost=st.sets(st.integers(1, 58)),
    )
    @settings(deadline=None)
    def test_never_exceed_what_happened_and_lose_only_to_restarts(
        self, steps: list[int], restarts: set[int], lost: set[int]
    ) -> None:
        value, values = 0, []
        for i, step in enumerate(steps):
            value = step if i in restarts else value + step
            values.append(None if i in lost and 0 < i < len(steps) - 1 else value)
        total = sum(counts([series(values)]))
        assert total <= sum(steps[1:])
        if not restarts:
            assert total == sum(steps[1:])


class TestNewLabels:
    def test_are_the_same_counter(self) -> None:
        for at in range(8):
            assert counts(relabelled(series([5, 6, 9, 9, 12, 20, 21], instance="a"), at)) == [0, 1, 3, 0, 3, 8, 1]

    def test_of_several_series_each_goes_on_as_the_one_most_alike(self) -> None:
        matrix = [
            *relabelled(series([100, 110, 120, 130], instance="a", decision="allow", severity="none"), 2),
            *relabelled(series([7, 7, 8, 8], instance="a", decision="deny", severity="low"), 2),
            *relabelled(series([50, 51, 51, 52], instance="a", decision="deny", severity="high"), 2),
        ]
        assert [(t.count, t.exposure) for t in ticks(matrix, measure="share")] == [(0, 0), (1, 11), (1, 11), (1, 11)]

    def test_after_a_restart_count_from_zero(self) -> None:
        matrix = [series([100, 110], instance="a"), series([None, None, 4, 9], instance="a", version="2")]
        assert [t.count for t in ticks([*matrix], measure="share")] == [0, 10, 4, 5]
        assert [t.void for t in ticks(matrix)] == [False, False, True, False]

    def test_of_a_series_that_went_on_elsewhere_are_no_events_when_it_comes_back(self) -> None:
        matrix = [
            series([10, 11, None, 13], instance="a"),
            series([None, None, 12, 13], instance="a", team="risk"),
        ]
        assert counts(matrix) == [0, 1, 1, 1]

    def test_long_after_a_series_fell_silent_are_another_series(self) -> None:
        alive = series([i * 10 for i in range(20)], instance="a", decision="allow")
        old = series([0, 3], instance="a", decision="deny")
        late = series([*[None] * 18, 2, 4], instance="a", decision="deny", team="risk")
        assert [t.count for t in ticks([alive, old, late], measure="share")][-2:] == [2, 2]

    @pytest.mark.parametrize(("number", "at_the_change"), [(500, 500), (2000, 0)])
    def test_of_hundreds_are_one_by_one_the_same_counters_and_of_thousands_no_events(
        self, number: int, at_the_change: int
    ) -> None:
        before = [series([i, i + 1, None, None], instance="a", rule=str(i)) for i in range(number)]
        after = [series([None, None, i + 2, i + 3], instance="a", rule=str(i), team="x") for i in range(number)]
        assert counts(before + after) == [0, number, at_the_change, number]


class TestGaps:
    def test_no_sample_is_no_evidence_and_the_next_tick_has_the_longer_exposure(self) -> None:
        found = ticks([series([0, 5, None, None, 20])])
        assert [(t.count, t.exposure, t.seconds) for t in found] == [
            (0, 0, 0),
            (5, 5, 5),
            (0, 0, 0),
            (0, 0, 0),
            (15, 15, 15),
        ]

    def test_a_replica_that_comes_back_alone_brings_only_this_ticks_part(self) -> None:
        always, away = [i * 10 for i in range(16)], [0, *[None] * 14, 150]
        found = ticks([series(always, instance="a"), series(away, instance="b")])
        assert [t.count for t in found] == [0, *[0] * 12, 130, 10, 20]
        assert [t.exposure for t in found] == [0, *[0] * 12, 65, 5, 5]

    def test_for_a_share_it_brings_all_above_and_below_the_line(self) -> None:
        matrix = [
            series([i * 10 for i in range(12)], instance="a", decision="allow"),
            series([0, *[None] * 10, 110], instance="b", decision="deny"),
        ]
        last = ticks(matrix, measure="share")[-1]
        assert (last.count, last.exposure, last.seconds) == (110, 120, 5)


class TestThinTicks:
    def test_a_tick_in_which_most_of_the_fleet_did_not_answer_waits_for_the_next(self) -> None:
        whole = [[i * 10 for i in range(6)] for _ in range(4)]
        holes = [
            [None if i == 3 and replica else v for i, v in enumerate(values)] for replica, values in enumerate(whole)
        ]
        found = ticks([series(values, instance=str(i)) for i, values in enumerate(holes)])
        assert [(t.count, t.exposure) for t in found] == [(0, 0), (40, 5), (40, 5), (0, 0), (80, 10), (40, 5)]

    def test_a_fleet_that_shrank_is_waited_for_a_minute_and_no_longer(self) -> None:
        matrix = [series([i * 10 for i in range(40)], instance="stays")]
        matrix += [series([0, 10, 20], instance=f"leaves{i}") for i in range(3)]
        found = ticks(matrix)
        assert [t.seconds for t in found].count(0) == 1 + 12
        assert sum(t.seconds for t in found) == 39 * 5
        assert sum(t.count for t in found) == 390 + 60

    def test_half_a_fleet_is_no_rate_until_the_other_half_answers(self) -> None:
        matrix = [series([i * 10 for i in range(8)], instance="a"), series([0, 10, None, None, None, 50, 60, 70])]
        found = ticks(matrix)
        assert [(t.count, t.exposure) for t in found[1:]] == [(20, 5), *[(0, 0)] * 3, (80, 20), (20, 5), (20, 5)]

    def test_half_a_fleet_still_makes_a_share(self) -> None:
        matrix = [
            series([i * 10 for i in range(6)], instance="a", decision="deny"),
            series([0, 10, None, None, None, 50], instance="b", decision="deny"),
        ]
        assert [t.count for t in ticks(matrix, measure="share")] == [0, 20, 10, 10, 10, 50]


class TestShare:
    def test_counts_what_is_not_allowed_among_all(self) -> None:
        matrix = [
            series([0, 8, 16], instance="a", decision="allow"),
            series([0, 1, 3], instance="a", decision="deny"),
            series([0, 1, 1], instance="a", decision="require_approval"),
        ]
        assert [(t.count, t.exposure) for t in ticks(matrix, measure="share")] == [(0, 0), (2, 10), (2, 10)]


class TestLive:
    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10**6), step=st.integers(1, 9), measure=st.sampled_from(["rate", "share"]))
    def test_feeding_bit_by_bit_gives_the_ticks_of_feeding_all_at_once(
        self, seed: int, step: int, measure: Measure
    ) -> None:
        rng = np.random.default_rng(seed)
        matrix = []
        for i in range(6):
            values: list[object] = [int(v) for v in np.cumsum(rng.poisson(4, 40))]
            for hole in rng.integers(0, 40, 5):
                values[hole] = None
            if i % 2:
                restart = int(rng.integers(5, 35))
                values[restart:] = [None if v is None else int(str(v)) // 3 for v in values[restart:]]
            decision = ("allow", "deny")[i % 2]
            entry = series(values, start=T0 + (i // 2) * 0.7, instance=str(i // 2), decision=decision)
            matrix += relabelled(entry, int(rng.integers(0, 80)))
        grid = CounterGrid(origin_s=T0 + 2.5, interval_s=5.0, measure=measure, counted=refused)
        live: list[Tick] = []
        for now in range(0, 220, step):
            seen = [{"metric": m["metric"], "values": [v for v in m["values"] if v[0] <= T0 + now]} for m in matrix]
            grid.feed(seen)
            live += grid.ticks(T0 + now)
        live += grid.ticks(T0 + 1000)
        whole = CounterGrid(origin_s=T0 + 2.5, interval_s=5.0, measure=measure, counted=refused)
        whole.feed(matrix)
        assert live == whole.ticks(T0 + 1000)

    def test_events_of_a_late_sample_are_not_lost(self) -> None:
        grid = CounterGrid(origin_s=T0 + 2.5, interval_s=5.0, measure="rate")
        grid.feed([series([0, 5, 10])])
        first = grid.ticks(T0 + 22.5)
        grid.feed([series([0, 5, 10, 17, 20])])
        assert sum(t.count for t in first + grid.ticks(T0 + 30)) == 20

    def test_ticks_are_given_once(self) -> None:
        grid = CounterGrid(origin_s=T0, interval_s=5.0, measure="rate")
        grid.feed([series([0, 5, 10])])
        assert grid.ticks(T0 + 10)
        assert grid.ticks(T0 + 10) == []


class TestOrigin:
    @given(phase=st.floats(0, 4.99), publish=st.floats(0, 4.99))
    def test_lies_between_the_scrapes_and_near_publish(self, phase: float, publish: float) -> None:
        matrix = [series(range(100), start=T0 + phase)]
        moment = T0 + 300 + publish
        origin = grid_origin(matrix, publish_s=moment, interval_s=5.0)
        assert 0 <= moment - origin < 5.0 + 1e-6
        assert math.isclose((origin - T0 - phase) % 5.0, 2.5, abs_tol=1e-4)

    def test_jitter_of_milliseconds_moves_no_sample_into_another_tick(self) -> None:
        rng = np.random.default_rng(5)
        values = [[T0 + 5.0 * i + float(rng.uniform(-0.02, 0.02)), str(i)] for i in range(200)]
        matrix: list[dict[str, Any]] = [{"metric": {}, "values": values}]
        origin = grid_origin(matrix, publish_s=T0 + 500.0, interval_s=5.0)
        grid = CounterGrid(origin_s=origin, interval_s=5.0, measure="rate")
        grid.feed(matrix)
        assert [t.count for t in grid.ticks(T0 + 1000)][1:200] == [1.0] * 199

    def test_is_publish_itself_without_samples(self) -> None:
        assert grid_origin([], publish_s=T0, interval_s=5.0) == T0


class TestHostileInput:
    @pytest.mark.parametrize(
        ("matrix", "place"),
        [
            ("text", "series"),
            ({"metric": {}}, "series"),
            ([7], r"series\[0\]"),
            ([{"values": []}], r"series\[0\].metric"),
            ([{"metric": {"a": 1}, "values": []}], r"series\[0\].metric"),
            ([{"metric": {}}], r"series\[0\].values"),
            ([{"metric": {}, "values": "ab"}], r"series\[0\].values"),
            ([{"metric": {}, "values": [[1]]}], r"values\[0\]"),
            ([{"metric": {}, "values": [[1, "1"], [None, "1"]]}], r"values\[1\]\[0\]"),
            ([{"metric": {}, "values": [["NaN", "1"]]}], r"values\[0\]\[0\]"),
            ([{"metric": {}, "values": [[1, "x"]]}], r"values\[0\]\[1\]"),
            ([{"metric": {}, "values": [[1, "1"], [2, "1e308"]]}], r"values\[1\]\[1\]: 1e\+308 is no count of events"),
            ([{"metric": {}, "values": [[1, 2**53 + 2]]}], r"values\[0\]\[1\]: .* is no count of events"),
            ([{"metric": {}, "values": [[1, 10**400]]}], r"values\[0\]\[1\]: not a number"),
            ([{"metric": {}, "values": [[1e300, "1"]]}], r"values\[0\]\[0\]: not a time"),
            ([{"metric": {}, "values": [[-1e300, "1"]]}], r"values\[0\]\[0\]: not a time"),
            ([{"metric": {}, "values": [[1, True]]}], r"values\[0\]\[1\]"),
            ([{"metric": {}, "values": [], "histograms": []}], "histogram"),
        ],
    )
    def test_is_refused_with_its_place(self, matrix: Any, place: str) -> None:
        with pytest.raises(InvalidSeriesError, match=place):
            parse_matrix(matrix)

    @pytest.mark.parametrize("interval", [0.0, -5.0, math.nan, math.inf])
    def test_a_grid_needs_a_positive_interval(self, interval: float) -> None:
        with pytest.raises(ValueError, match="not a scrape grid"):
            CounterGrid(origin_s=T0, interval_s=interval, measure="rate")

    def test_samples_from_the_dawn_of_time_do_not_make_millions_of_ticks(self) -> None:
        grid = CounterGrid(origin_s=T0, interval_s=5.0, measure="rate", oldest_s=T0 - 100)
        grid.feed([{"metric": {}, "values": [[-1e11, "1"], [0, "2"]]}, series([3, 4])])
        assert len(grid.ticks(T0 + 10)) == 3

    def test_ten_thousand_series_are_summed(self) -> None:
        matrix = [series([0, 1, 3], instance=str(i)) for i in range(10_000)]
        assert counts(matrix) == [0, 10_000, 20_000]
