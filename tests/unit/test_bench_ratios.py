"""A slower ratio is named; a busy machine is refused."""

from typing import Any

import pytest

from bench.__main__ import QUIET, require_quiet
from bench.numbers import summary
from bench.ratios import ALLOWED, ratios, slower
from bench.runs import BenchError
from bench.turns import Measured, summarised
from bench.wrk import Load


def measured(*rates: float) -> list[Measured]:
    return [Measured(Load(answers=1000, per_second=rate, p50=0.001, p99=0.002), cpu=1 / rate) for rate in rates]


def result(ours: float, bare: float = 1000.0) -> dict[str, Any]:
    found = {("service", "200", 16): measured(ours, ours, ours), ("bare", "200", 16): measured(bare, bare, bare)}
    return {"name": "read", "summary": summarised(found)}


def test_ratios_are_taken_round_by_round() -> None:
    # A machine that halves its pace in the second round, for both: the ratio is the same in each.
    found = {("service", "200", 1): measured(800, 400, 800), ("bare", "200", 1): measured(1000, 500, 1000)}
    (row,) = [row for row in summarised(found) if row["server"] == "service"]
    assert row["rate_ratio"] == summary([1.25, 1.25, 1.25])
    assert row["cpu_ratio"]["p50"] == pytest.approx(1.25)


def test_a_ratio_that_grew_is_named_and_one_that_shrank_is_not() -> None:
    recorded = {"read": {"commit": "abc", "ratios": ratios(result(1000.0))}}
    assert ratios(result(1000.0)) == {"200, 16 connections, rate": 1.0, "200, 16 connections, cpu": 1.0}
    assert slower(recorded, [result(1000.0 / (ALLOWED - 0.01))]) == []
    assert slower(recorded, [result(2000.0)]) == []
    named = slower(recorded, [result(1000.0 / (ALLOWED + 0.01))])
    assert [line.split(":")[0] for line in named] == ["read", "read"]
    assert "recorded 1.00 (abc)" in named[0]
    assert slower({}, [result(1.0)]) == []  # nothing was recorded of it


def test_a_busy_machine_is_refused_unless_somebody_says_so() -> None:
    require_quiet(QUIET, busy=False)
    require_quiet(8.0, busy=True)
    with pytest.raises(BenchError, match=r"load average is 8.0, above 1.0"):
        require_quiet(8.0, busy=False)
