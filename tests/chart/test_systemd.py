"""The units of deploy/systemd by systemd's own tools, without a systemd that runs; and settings that are read."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from adapters.setting_names import unread
from deploy.embedded.stack_directory import CHECKOUT
from deploy.settings_reference import PROCESSES
from tests.chart.settings import OF_OTHERS, names_of, needed_by

pytestmark = pytest.mark.chart

UNITS = CHECKOUT / "deploy" / "systemd"
COMMON = UNITS / "constitution-.service.d" / "10-common.conf"
FILES = {
    process: "constitution-service.service"
    if process == "constitution-service"
    else f"constitution-{process}{'@' if process in {'policy-engine', 'orchestrator'} else ''}.service"
    for process in PROCESSES
}
EXPOSURE = 2.0  # of 10, as systemd-analyze counts; below 2 it says "OK"


def systemd_analyze(*arguments: str, path: Path | None = None) -> str:
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is missing: apt-get install systemd"
    environment = {**os.environ, **({"SYSTEMD_UNIT_PATH": f"{path}:"} if path else {})}
    done = subprocess.run(  # noqa: S603
        [program, *arguments], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A root with the units in it, whose programs are this checkout's: systemd-analyze looks for them."""
    folder = tmp_path / "usr" / "lib" / "systemd" / "system"
    shutil.copytree(UNITS, folder)
    for unit in folder.rglob("*"):
        if unit.suffix in {".service", ".conf"}:
            text = unit.read_text(encoding="utf-8")
            unit.write_text(text.replace("/opt/constitution/.venv/bin/python", f'"{sys.executable}"'), encoding="utf-8")
    return tmp_path


def given_in_unit(process: str) -> set[str]:
    """Names of the variables that a unit and the common drop-in set."""
    lines = (UNITS / FILES[process]).read_text() + COMMON.read_text()
    pairs = [pair for line in re.findall(r"^Environment=(.*)$", lines, re.MULTILINE) for pair in line.split()]
    return {pair.partition("=")[0] for pair in pairs} - {"PATH"}


def given_in_file(process: str) -> set[str]:
    return set(dotenv_values(UNITS / "env" / f"{process}.env"))


def test_there_is_a_unit_for_each_process_and_no_other() -> None:
    assert {file.name for file in UNITS.glob("*.service")} == set(FILES.values())
    assert {file.name for file in (UNITS / "env").iterdir()} == {f"{process}.env" for process in PROCESSES}


def test_systemd_finds_nothing_to_say(installed: Path) -> None:
    folder = installed / "usr" / "lib" / "systemd" / "system"
    units = [str(folder / name.replace("@", "@one")) for name in FILES.values()]
    said = systemd_analyze("verify", "--man=no", *units, path=folder)
    assert [line for line in said.splitlines() if "constitution" in line] == []


@pytest.mark.parametrize("process", PROCESSES)
def test_each_unit_is_confined(process: str, installed: Path) -> None:
    name = FILES[process].replace("@", "@one")
    said = systemd_analyze("security", "--offline=yes", f"--root={installed}", "--no-pager", name)
    (level,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert float(level) < EXPOSURE
    common = COMMON.read_text().splitlines()
    assert {"DynamicUser=yes", "ProtectSystem=strict", "NoNewPrivileges=yes"} <= set(common)


@pytest.mark.parametrize("process", PROCESSES)
def test_each_process_is_given_what_it_needs_and_nothing_that_it_does_not_read(process: str) -> None:
    given = given_in_unit(process) | given_in_file(process)
    assert unread(given) == ()
    own = {name for name in given if not OF_OTHERS.fullmatch(name)} - {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
    if process == "migrate":
        own.discard("ENVIRONMENT_FILE")  # set for every unit alike
    assert own <= names_of(process)
    assert needed_by(process) <= given


@pytest.mark.parametrize("process", PROCESSES)
def test_no_key_is_a_file_that_the_process_opens_by_its_own_rights(process: str) -> None:
    text = (UNITS / FILES[process]).read_text()
    loaded = set(re.findall(r"^LoadCredential=([\w.-]+):", text, re.MULTILINE))
    named = set(re.findall(r"_KEY_FILE=%d/([\w.-]+)", text))
    assert loaded == named
    assert {name for name in given_in_file(process) if name.endswith("KEY_FILE")} == set()
