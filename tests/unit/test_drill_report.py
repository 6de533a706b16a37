"""What a drill shows: a table for people, JSON for programs, and a verdict that no failed check gets past."""

import json

import pytest
import typer.testing

from constitution_client.commands import app
from deploy.drill.report import Check, Kill, Report

RUNNING = Kill("update", "publish", "load_release", "running", 3.5, 20.5, 2)
WAITING = Kill("update", "board", "", "waiting", 2.5, 0.0, 0)
RIGHT = Check("update: ended as completed", passed=True, detail="completed: live")
WRONG = Check("update: every system agrees", passed=False, detail="Redis: it is missing")


def test_the_table_names_each_step_its_moment_and_its_recovery() -> None:
    lines = Report((RUNNING, WAITING), (RIGHT,), 61.2).lines()
    assert lines[0].split() == [
        *("run", "step", "killed", "in", "moment", "worker", "back,", "s", "step", "done,", "s", "attempts")
    ]
    assert lines[1].split() == ["update", "publish", "load_release", "running", "3.5", "20.5", "2"]
    assert lines[2].split() == ["update", "board", "people", "waiting", "2.5", "0.0", "0"]
    assert len({line.index(word) for line, word in zip(lines, ("moment", "running", "waiting"), strict=False)}) == 1
    assert lines[-1] == "2 kills in 61 s: every outcome was right"


def test_json_holds_every_kill_every_check_and_the_longest_recovery() -> None:
    said = json.loads(json.dumps(Report((RUNNING, WAITING), (RIGHT,), 61.2).as_json()))
    assert said["passed"] is True
    assert said["recovery"] == {"kills": 2, "polling_s_max": 3.5, "done_s_max": 20.5}
    assert said["kills"][0]["step"] == "publish"
    assert said["checks"] == [{"what": RIGHT.what, "passed": True, "detail": RIGHT.detail}]


@pytest.mark.parametrize("checks", [(), (WRONG,), (RIGHT, WRONG)])
def test_one_failed_check_or_none_at_all_is_no_success(checks: tuple[Check, ...]) -> None:
    report = Report((RUNNING,), checks, 1.0)
    assert not report.passed
    assert report.as_json()["passed"] is False
    assert report.lines()[-1].endswith("NOT every outcome was right")


def test_the_verb_is_registered() -> None:
    said = typer.testing.CliRunner().invoke(app, ["drill", "--help"])
    assert said.exit_code == 0
    assert "kill the worker in each step" in " ".join(said.output.split())
