import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constitution.errors import InvalidRequestError
from constitution.release import Verdict
from constitution.watch.backtest import BacktestCase, read_case, run_case
from constitution.watch.spike import SpikeParameters
from constitution.watch.watching import QuantityWatch
from constitution_client import backtest as backtest_verb
from constitution_client.settings import UsageError

PUBLISH = 1_700_000_000.0
BOTH = SpikeParameters(direction="both")


def traffic(
    *, share: float, share_after: float | None = None, per_second: float = 8.0, seed: int = 1, before: int = 360
) -> list[dict[str, Any]]:
    """Two replicas' raw counters, scraped every 5 s at their own instants with jitter; deny-series born at an event."""
    rng = np.random.default_rng(seed)
    after = 360
    p = np.r_[np.full(before, share), np.full(after, share if share_after is None else share_after)]
    found = []
    for replica, phase in enumerate((0.7, 3.1)):
        total = rng.poisson(per_second * 5 / 2, before + after)
        denied = rng.binomial(total, p)
        at = PUBLISH + phase + 5.0 * (np.arange(before + after) - before) + rng.uniform(-0.01, 0.01, before + after)
        for decision, events in (("allow", total - denied), ("deny", denied)):
            values = [[float(t), str(int(v))] for t, v in zip(at, np.cumsum(events), strict=True) if v > 0]
            labels = {"job": "policy-engine", "instance": f"h{replica}", "decision": decision}
            found.append({"metric": labels, "values": values})
    return found


def case(series: list[dict[str, Any]], **more: Any) -> BacktestCase:
    fields = {"id": "r1", "publish_ts": PUBLISH, "bake_s": 1800, "scrape_interval_s": 5, "series": series}
    return BacktestCase.model_validate(fields | more)


class TestRunCase:
    def test_a_rise_of_the_refused_share_is_an_anomaly_soon_after_publish(self) -> None:
        result = run_case(case(traffic(share=0.1, share_after=0.25)), BOTH)
        assert result.verdict is Verdict.ANOMALY
        assert result.at is not None
        assert PUBLISH < result.at < PUBLISH + 120
        assert result.log_e >= BOTH.limit
        assert result.ratio is not None
        assert result.ratio > 1.5

    def test_the_same_share_under_twice_the_load_is_ok(self) -> None:
        matrix = traffic(share=0.1)
        doubled = [
            entry | {"values": [[t, str(int(v) * (2 if float(t) > PUBLISH else 1))] for t, v in entry["values"]]}
            for entry in matrix
        ]
        # Doubling the cumulative value is one jump at publish, alike above and below the line.
        assert run_case(case(doubled), BOTH).verdict is Verdict.OK
        assert run_case(case(doubled, measure="rate"), BOTH).verdict is Verdict.ANOMALY

    def test_harmless_traffic_is_ok_at_the_end_of_the_bake(self) -> None:
        result = run_case(case(traffic(share=0.1)), BOTH)
        assert result.verdict is Verdict.OK
        assert result.at == PUBLISH + 1800
        assert result.coverage == 1.0
        low, high = result.ci
        assert high is not None
        assert low < 1 < high

    def test_without_allow_series_the_rate_of_all_series_is_watched(self) -> None:
        refusals = [s for s in traffic(share=0.3, share_after=0.9) if s["metric"]["decision"] == "deny"]
        assert run_case(case(refusals), BOTH).verdict is Verdict.ANOMALY

    def test_refusals_born_after_publish_are_found(self) -> None:
        result = run_case(case(traffic(share=0.0, share_after=0.2)), BOTH)
        assert result.verdict is Verdict.ANOMALY
        assert result.ratio is None
        assert json.loads(result.model_dump_json())["ci"][1] is None

    @pytest.mark.parametrize(
        ("series", "verdict"),
        [
            ([], Verdict.NO_DATA),
            ([{"metric": {"decision": "allow"}, "values": []}], Verdict.NO_DATA),
            (traffic(share=0.1, before=0), Verdict.CANNOT_TELL),
        ],
    )
    def test_nothing_to_judge_is_never_ok(self, series: list[dict[str, Any]], verdict: Verdict) -> None:
        result = run_case(case(series), BOTH)
        assert result.verdict is verdict
        assert result.at is None

    def test_data_that_end_in_the_middle_of_the_bake_are_no_data(self) -> None:
        cut = [s | {"values": [v for v in s["values"] if v[0] < PUBLISH + 900]} for s in traffic(share=0.1)]
        assert run_case(case(cut), BOTH).verdict is Verdict.NO_DATA

    def test_a_reset_of_every_replica_at_publish_is_no_anomaly(self) -> None:
        matrix = traffic(share=0.1, per_second=20)
        for entry in matrix:
            last = max(float(v) for t, v in entry["values"] if t <= PUBLISH)
            entry["values"] = [[t, str(float(v) - (last if t > PUBLISH else 0))] for t, v in entry["values"]]
        assert run_case(case(matrix), BOTH).verdict is Verdict.OK
        assert run_case(case(matrix, measure="rate"), BOTH).verdict is Verdict.OK

    def test_one_case_does_not_fit_its_scrape_interval(self) -> None:
        with pytest.raises(InvalidRequestError, match="does not fit"):
            run_case(case([], bake_s=1, scrape_interval_s=60), BOTH)


class TestLiveWatch:
    @pytest.mark.parametrize(
        ("skew", "share_after"),
        [
            (0.0, 0.1),
            pytest.param(1.3, 0.1, marks=pytest.mark.slow),
            (2.6, 0.1),
            pytest.param(3.9, 0.1, marks=pytest.mark.slow),
            *((skew, 0.16) for skew in (0.0, 1.3, 2.6, 3.9)),
        ],
    )
    def test_fed_scrape_by_scrape_and_killed_twice_it_decides_as_the_backtest(
        self, share_after: float, skew: float
    ) -> None:
        publish = PUBLISH + skew  # between the scrapes of the two replicas, before both, after both
        matrix = traffic(share=0.1, share_after=share_after)
        expected = run_case(case(matrix, publish_ts=publish), BOTH)

        def stored(now: float) -> list[dict[str, Any]]:
            return [s | {"values": [v for v in s["values"] if v[0] <= now]} for s in matrix]

        watch = QuantityWatch.begin(stored(publish), publish_s=publish, parameters=BOTH)
        for scrape in range(1, 364):
            now = publish + 5.0 * scrape
            if scrape in {40, 41}:
                watch = QuantityWatch.resume(json.loads(json.dumps(watch.state())), stored(now))
            watch.feed(stored(now))
            if watch.advance(now - 2.5).verdict is not None:
                break
        reading = watch.finish()
        assert reading.verdict is expected.verdict
        assert reading.max_log_e == expected.log_e
        assert watch.decided_at(reading) == expected.at

    def test_windows_of_rolled_back_releases_are_left_out_of_the_baseline(self) -> None:
        matrix = traffic(share=0.1)
        whole = QuantityWatch.begin(matrix, publish_s=PUBLISH, parameters=BOTH).test.baseline
        part = QuantityWatch.begin(
            matrix, publish_s=PUBLISH, parameters=BOTH, left_out=[(PUBLISH - 900, PUBLISH - 300)]
        ).test.baseline
        assert part.scrapes == whole.scrapes - 121
        assert part.t0 < whole.t0


class TestReadCase:
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (b"", "not JSON"),
            (b"\xff\xfe", "not JSON"),
            (b"[1]", "not a JSON object"),
            (b"[" * 100_000, "nested too deeply"),
            (b'{"id": "a"}', "not a case"),
            (b'{"id": "a", "publish_ts": NaN, "bake_s": 1, "scrape_interval_s": 1, "series": []}', "not a case"),
            (b'{"id": "a", "publish_ts": 1, "bake_s": -1, "scrape_interval_s": 1, "series": []}', "not a case"),
            (b'{"id": "a", "publish_ts": 1, "bake_s": 1, "scrape_interval_s": 1, "series": {}}', "not a case"),
            (b'{"id": ' + b"9" * 5000 + b"}", "not a case"),
            (b'{"id": "a", "publish_ts": 1, "bake_s": 1, "scrape_interval_s": 0.001, "series": []}', "not a case"),
            (b'{"id": "a", "publish_ts": 1, "bake_s": 1e-6, "scrape_interval_s": 1e-9, "series": []}', "not a case"),
        ],
    )
    def test_refuses_what_is_no_case(self, line: bytes, message: str) -> None:
        with pytest.raises(InvalidRequestError, match=message):
            read_case(line)

    @settings(max_examples=200, deadline=None)
    @given(
        lies=st.dictionaries(
            st.integers(0, 239),
            st.one_of(
                st.sampled_from(["1e308", "NaN", "+Inf", "-Inf", "-5", "1e-320", str(2**53), "1e16", "0"]),
                st.floats().map(repr),
                st.integers(-(10**30), 10**30),
            ),
            max_size=6,
        ),
        times=st.dictionaries(st.integers(0, 239), st.floats(), max_size=3),
        measure=st.sampled_from(["rate", "share"]),
    )
    def test_judges_or_refuses_by_name_whatever_a_sample_says(
        self, lies: dict[int, str | int], times: dict[int, float], measure: str
    ) -> None:
        values = [[times.get(i, PUBLISH - 600 + i * 5), lies.get(i, str(i * 3))] for i in range(240)]
        series = [{"metric": {"instance": "a", "decision": "deny"}, "values": values}]
        line = json.dumps(case(series).model_dump() | {"measure": measure, "bake_s": 600.0}).encode()
        absurd = [float(v) > 2**53 and math.isfinite(float(v)) for v in lies.values()]
        absurd += [not abs(t) < 253_402_300_800 for t in times.values()]
        if any(absurd):
            with pytest.raises(InvalidRequestError, match=r"series\[0\].values\["):
                run_case(read_case(line), BOTH)
            return
        found = run_case(read_case(line), BOTH)
        assert math.isfinite(found.log_e)
        assert found.ratio is None or math.isfinite(found.ratio)

    @pytest.mark.slow
    def test_a_tenth_of_a_second_between_scrapes_is_still_judged(self) -> None:
        series = [{"metric": {"instance": "a"}, "values": [[PUBLISH - 600 + i / 10, str(i)] for i in range(12_000)]}]
        tight = case(series).model_copy(update={"scrape_interval_s": 0.1, "bake_s": 600.0, "measure": "rate"})
        assert run_case(tight, SpikeParameters()).verdict is Verdict.OK

    def test_ignores_notes(self) -> None:
        line = json.dumps(case([]).model_dump() | {"truth": "harmless"}).encode()
        assert read_case(line).id == "r1"


class TestVerb:
    def run(self, path: Path, **flags: Any) -> None:
        defaults: dict[str, Any] = {
            "query": None,
            "start": None,
            "end": None,
            "publish": None,
            "prometheus": None,
            "bake": 1800.0,
            "baseline": 21600.0,
            "scrape_interval": 5.0,
            "measure": None,
            "alpha": 0.01,
            "delta": 0.1,
            "min_rate": 0.0,
            "direction": "both",
            "explain": False,
        }
        backtest_verb.backtest(file=path, **(defaults | flags))

    def test_prints_one_line_for_each_case_with_exactly_these_fields(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "cases.jsonl"
        cases = [case(traffic(share=0.1, share_after=s), id=f"r{s}").model_dump() for s in (0.1, 0.3)]
        path.write_text("".join(json.dumps(c) + "\n" for c in cases), encoding="utf-8")
        self.run(path)
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(line["id"], line["verdict"]) for line in lines] == [("r0.1", "ok"), ("r0.3", "anomaly")]
        assert all(list(line) == ["id", "verdict", "at", "log_e", "ratio", "ci", "coverage"] for line in lines)

    def test_judges_as_a_strategy_with_a_shorter_baseline_and_without_what_was_undone(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "case.jsonl"
        # Half an hour before publish a release was live that refused three times as much, for ten minutes.
        undone = (PUBLISH - 1800.0, PUBLISH - 1200.0)
        burning = [
            entry | {"values": [[t, v] for t, v in entry["values"]]} for entry in traffic(share=0.1, share_after=0.1)
        ]
        extra = 0.0
        for i, (t, _) in enumerate(burning[1]["values"]):
            extra += 5.0 * (undone[0] < t <= undone[1])
            burning[1]["values"][i][1] = str(float(burning[1]["values"][i][1]) + extra)
        path.write_text(json.dumps(case(burning).model_dump()) + "\n", encoding="utf-8")
        window = "/".join(str(moment) for moment in undone)
        for flags in ({}, {"left_out": [window]}, {"level": 900.0}):
            self.run(path, **flags)
        whole, without, newest = (json.loads(line) for line in capsys.readouterr().out.splitlines())
        assert whole["ratio"] < without["ratio"]
        assert whole["ratio"] < newest["ratio"]
        assert without["verdict"] == "ok"

    def test_names_each_bad_line_and_judges_the_others(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "cases.jsonl"
        good = json.dumps(case([]).model_dump())
        bad = json.dumps(case([{"metric": {}, "values": [[1, "x"]]}]).model_dump())
        absurd = json.dumps(case([{"metric": {}, "values": [[1, "1"], [6, "1e308"]]}]).model_dump())
        tight = json.dumps(case([]).model_dump() | {"scrape_interval_s": 0.001})
        path.write_text(f"{good}\nnonsense\n\n{bad}\n{good}\n{absurd}\n{tight}\n", encoding="utf-8")
        with pytest.raises(UsageError) as caught:
            self.run(path)
        assert "line 2: not JSON" in caught.value.message
        assert "line 4: series[0].values[0][1]: not a number" in caught.value.message
        assert "line 6: series[0].values[1][1]: 1e+308 is no count of events" in caught.value.message
        assert "/scrape_interval_s" in caught.value.message
        assert len(capsys.readouterr().out.splitlines()) == 2

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ({"direction": "left"}, "do not make a test"),
            ({"alpha": 2.0}, "do not make a test"),
            ({"query": "x"}, "either --input"),
            ({"left_out": ["1700000000"]}, "not FROM/TO"),
            ({"left_out": ["1700000000/soon"]}, "neither unix seconds nor ISO"),
        ],
    )
    def test_refuses_wrong_flags(self, tmp_path: Path, flags: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            self.run(tmp_path / "cases.jsonl", **flags)

    def test_a_missing_file_is_wrong_usage(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="No such file"):
            self.run(tmp_path / "nothing.jsonl")
