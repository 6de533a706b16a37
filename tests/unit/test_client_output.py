"""What reaches a terminal, and how starting stays cheap."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from constitution.environment import Strategy
from constitution.messages import Outcome, Phase, Status
from constitution_client import help_text
from constitution_client.output import clean, one_line, result, table
from constitution_client.render import status_lines

HEAVY = ("pydantic", "httpx", "temporalio", "sigstore", "pysequoia", "joserfc", "stamina", "cryptography")


class TestClean:
    @pytest.mark.parametrize(
        "hostile",
        ["\x1b[2J\x1b[1;1HAPPROVED", "\x9b31m", "\x07", "\x00", "\r", "\x7f", "\u202efdp.exe", "\u2066x"],
        ids=["ansi", "c1", "bell", "nul", "carriage return", "delete", "right-to-left", "isolate"],
    )
    def test_leaves_nothing_that_steers_a_terminal(self, hostile: str) -> None:
        cleaned = clean(hostile)
        assert all(character.isprintable() for character in cleaned)
        assert not set(cleaned) & set("\u202e\u2066")

    def test_keeps_words_of_any_language_and_line_breaks(self) -> None:
        assert clean("Ääkköset\n憲法 🔒 שלום") == "Ääkköset\n憲法 🔒 שלום"


class TestResult:
    def test_json_is_exact_whatever_the_text_holds(self, capsys: pytest.CaptureFixture[str]) -> None:
        data = {"title": "\x1b[2J", "n": 1}
        result(data, ["ignored"], True)
        assert json.loads(capsys.readouterr().out) == data

    def test_a_pipe_gets_json_and_asking_for_text_gives_text(self, capsys: pytest.CaptureFixture[str]) -> None:
        result({"a": 1}, ["a is one"], None)
        assert json.loads(capsys.readouterr().out) == {"a": 1}
        result({"a": 1}, ["a is one"], False)
        assert capsys.readouterr().out == "a is one\n"


def test_a_table_is_as_wide_as_its_cells() -> None:
    assert table(("a", "b"), [("long", 1), ("x", "line\nbreak")]) == ["a     b", "long  1", "x     line break"]


def test_the_list_of_verbs_is_what_typer_writes() -> None:
    kept = Path(help_text.__file__).with_name("help.txt").read_text(encoding="utf-8")
    assert kept == help_text.rendered(), "python -m constitution_client.help_text writes it anew"


@pytest.mark.parametrize("columns", [60, 100])
def test_help_fits_a_narrow_terminal_and_is_quick_on_others(columns: int) -> None:
    code = "import sys; from constitution_client.main import run; run(['-h']); print('typer' in sys.modules)"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code],
        env=os.environ | {"COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=60,
    )
    *lines, typer_loaded = done.stdout.splitlines()
    assert max(len(line) for line in lines) <= columns
    assert (typer_loaded == "True") is (columns < help_text.WIDTH)


def test_the_list_of_verbs_loads_nothing_heavy() -> None:
    code = f"import sys, constitution_client.commands; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    assert (done.returncode, done.stdout.strip()) == (0, "[]")


def test_a_reason_with_line_breaks_says_no_line_of_its_own() -> None:
    reason = "typo\n  signed by      alva\r\n\u2028  evidence ok"
    assert one_line(f"  change request CR-1 by mara: {reason}").count("\n") == 0
    assert len(one_line(reason).splitlines()) == 1


@pytest.mark.parametrize(
    ("outcome", "detail", "shown"),
    [
        (
            Outcome.REJECTED,
            "rejected, nothing live was touched: aborted",
            "rejected: nothing live was touched: aborted",
        ),
        (Outcome.ROLLED_BACK, "rolled back, 1.1.0 is live again", "rolled_back: 1.1.0 is live again"),
        (Outcome.COMPLETED, "1.1.0 is live", "completed: 1.1.0 is live"),
    ],
)
def test_an_outcome_is_said_once(outcome: Outcome, detail: str, shown: str) -> None:
    status = Status(workflow="ConstitutionUpdate", phase=Phase.CLOSED, steps=(), outcome=outcome, outcome_detail=detail)
    assert f"outcome      {shown}" in status_lines("constitution-update/development/CR-1", status)


def test_a_run_shows_how_it_is_watched_and_what_is_expected() -> None:
    status = Status(
        workflow="ConstitutionUpdate",
        phase=Phase.WAITING,
        strategy=f"careful: {Strategy(watch_seconds=300, measure='share').words()}",
        predicted=("refused now: 9 %", "refused with the candidate: 91 %"),
    )
    lines = status_lines("constitution-update/development/CR-1", status)
    watched = next(line for line in lines if line.startswith("watch "))
    assert "careful: watched for 300 s" in watched
    assert "on anomaly rollback" in watched
    assert [line for line in lines if line.startswith("expected")] == [
        "expected     refused now: 9 %",
        "expected     refused with the candidate: 91 %",
    ]
    assert Strategy(watch_seconds=0).words().startswith("not watched")
