"""`constitution drill` that does not come to its end leaves no process and no folder, and says what became of it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.world.files import CHECKOUT


def begin(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "constitution_client", "drill", "--directory", str(directory)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def processes_of(directory: Path) -> list[str]:
    """Command lines of every process that has something to do with a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        if str(directory) in line:
            found.append(line)
    return found


def test_a_drill_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "drill"
    process = begin(home)
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "runs after" in line:
            break
    assert process.poll() is None, seen
    assert processes_of(home)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)

    assert (process.returncode, out) == (130, "")
    assert "interrupted" in said
    assert not home.exists()
    assert processes_of(home) == []


@pytest.mark.slow
def test_a_drill_takes_no_folder_that_is_in_use(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for place in (file, tmp_path):
        process = begin(place)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said.splitlines()) == (
            2,
            [f"error: {place} is no empty folder: a drill needs one of its own"],
        )
    assert file.read_text() == "mine"
