"""A rule means one thing on every host: time zones are literal offsets, and functions a closed list."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from constitution.errors import InvalidDocumentError
from constitution.policy.document import parse
from constitution.policy.expressions import ENVIRONMENT, check_expression, compile_expression, run
from tests.unit.keyring import document, rule

TEXTS = ("tenant", "user", "agent", "action", "tool", "currency", "data_class", "prompt")
PARTS = ("FullYear", "Month", "Date", "DayOfMonth", "DayOfWeek", "DayOfYear", "Hours", "Minutes", "Seconds")
REFUSED = (
    "localtime",
    "file:/etc/localtime",
    "Europe/Berlin",
    "Europe/Brelin",
    "CET",
    "utc",
    "Z",
    "",
    "Fixed/UTC+05:00:00",
    "02:00",
    "+2:00",
    "+02",
    "+0200",
    "+14:01",
    "+99:99",
    "+02:60",
    " +02:00",
    "+02:00\\n",
    "\\u002d\\uff1002:00",
)


def activation(moment: datetime) -> dict[str, Any]:
    return {**dict.fromkeys(TEXTS, ""), "amount": 0.0, "time": moment}


@pytest.mark.parametrize("part", [*PARTS, "Milliseconds"])
@pytest.mark.parametrize("zone", REFUSED)
def test_a_zone_that_the_host_would_look_up_or_that_is_misspelt_is_refused_at_push(part: str, zone: str) -> None:
    draft = document(rules=[rule("night", "deny", f'time.get{part}("{zone}") > 5')])
    with pytest.raises(InvalidDocumentError) as caught:
        parse(json.dumps(draft).encode())
    (issue,) = caught.value.issues
    assert (issue.code, issue.path) == ("cel-time-zone", "/rules/0/when")
    assert "offset from UTC" in issue.message
    assert 'time.getHours("+01:00")' in issue.hint


@pytest.mark.parametrize(
    "when",
    [
        "time.getHours(user) > 5",
        'time.getHours("+02" + ":00") > 5',
        'time.getHours(tenant == "a" ? "UTC" : "+01:00") > 5',
        'time.getHours(["+02:00"][0]) > 5',
        '[time].exists(t, t.getHours("localtime") > 5)',
        'dyn(time).getHours("localtime") > 5',
        'timestamp("2026-01-01T00:00:00Z").getHours("localtime") > 5',
        'time.getHours(dyn("localtime")) > 5',
        '{"a": time.getHours("localtime")}["a"] > 5',
        'time.getHours("UTC") > 5 && time.getHours("localtime") > 5',
    ],
)
def test_no_way_around_the_literal_offset(when: str) -> None:
    assert [issue.code for issue in check_expression(when, "/x")] == ["cel-time-zone"]


@pytest.mark.parametrize("sign", [1, -1])
def test_an_offset_means_what_it_says_for_every_part_of_a_time(sign: int) -> None:
    """Against Python's own calendar, at a moment where each offset changes the day or the year."""
    moment = datetime(2026, 1, 1, 0, 10, 5, tzinfo=UTC) if sign < 0 else datetime(2025, 12, 31, 23, 50, 5, tzinfo=UTC)
    for minutes in (0, 1, 30, 45, 60, 59, 5 * 60 + 30, 13 * 60 + 59, 14 * 60):
        zone = f"{'+' if sign > 0 else '-'}{minutes // 60:02}:{minutes % 60:02}"
        local = moment + sign * timedelta(minutes=minutes)
        day = local.timetuple().tm_yday - 1
        wanted = (local.year, local.month - 1, local.day, local.day - 1, local.isoweekday() % 7, day)
        for part, value in zip(PARTS, (*wanted, local.hour, local.minute, local.second), strict=True):
            when = f'time.get{part}("{zone}") == {value}'
            assert check_expression(when, "/x") == ()
            assert run(compile_expression(when), ENVIRONMENT.Activation(activation(moment))).matched, (when, moment)


@pytest.mark.parametrize(
    "host", [{"TZ": "Pacific/Auckland"}, {"TZ": "UTC"}, {"TZDIR": "/nonexistent"}, {"LC_ALL": "C"}]
)
def test_every_answer_is_the_same_on_hosts_that_are_set_up_differently(host: dict[str, str]) -> None:
    """Every function that a rule may call, in a process of its own for each set-up of zone, zone files and locale."""
    program = (
        "from datetime import *; from constitution.policy.expressions import ENVIRONMENT\n"
        "from tests.unit.test_rules_on_any_host import CALLS, activation\n"
        "at = activation(datetime(2026, 3, 29, 1, 30, tzinfo=UTC))\n"
        "print([repr(ENVIRONMENT.compile(c).eval(data=at).plain_value()) for c in CALLS])"
    )

    def said(extra: dict[str, str]) -> str:
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **extra}
        done = subprocess.run(  # noqa: S603 - our own interpreter and text
            [sys.executable, "-c", program],
            env=env,
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    assert said(host) == said({})


CALLS = (
    *(f"time.get{part}()" for part in (*PARTS, "Milliseconds")),
    *(f'time.get{part}("-05:30")' for part in (*PARTS, "Milliseconds")),
    "string(time)",
    "string(1234567.891)",
    "string(duration('3661s'))",
    "int(time)",
    "double('1.5') + 1.0",
    "timestamp('2026-01-01T00:00:00+05:00') < time",
    "time - duration('90m') < time",
    "'Ä'.matches('(?i)ä')",
    "'Straße'.contains('ß') && size('Straße') == 6",
    "'a' < 'Z'",
    "bytes('ü') == b'\\xc3\\xbc'",
    "-7 / 2 + -7 % 2",
    "type(1) == int && uint(3) == 3u && bool('true') && dyn(1) == 1",
    "[1, 2].exists(x, x in [2]) || !('a'.startsWith('b') || 'a'.endsWith('c')) ? 1 : 0",
)


@pytest.mark.parametrize(
    "when", [*(f"({call}) == ({call})" for call in CALLS[:-1]), f"({CALLS[-1]}) == 1", "{'a': 1}['a'] * 2 - 1 >= 1"]
)
def test_what_the_language_offers_is_on_the_list(when: str) -> None:
    assert check_expression(when, "/x") == ()
