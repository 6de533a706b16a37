"""PostgreSQL of a root stack runs as another user, who reaches all that is its, whatever the caller's umask."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded.postgres import open_to_all, outside, passable, readable
from deploy.embedded.stack import Stack
from deploy.embedded.stack_directory import CHECKOUT

STRANGER = (54321, 54321)
START = (
    "import sys; from pathlib import Path; from deploy.embedded.stack import Stack;"
    "stack = Stack(Path(sys.argv[1]), ('postgres',), environment={});"
    "stack.start(); print(*[status.state for status in stack.status()]); stack.stop()"
)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "var"
    Stack(tmp_path / "var", environment={}).erase()


def start(directory: Path, umask: int) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", START, str(directory)]
    return subprocess.run(command, cwd=CHECKOUT, umask=umask, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o077, 0o027])
def test_a_stack_starts_under_a_closed_umask_and_again_under_an_open_one(directory: Path, umask: int) -> None:
    for mask in (umask, 0o022):
        started = start(directory, mask)
        assert (started.returncode, started.stdout) == (0, "running\n"), started.stderr


@pytest.mark.slow
def test_a_folder_that_was_left_closed_is_opened(directory: Path) -> None:
    directory.parent.chmod(0o700)
    if os.geteuid() == 0:
        outside(directory).mkdir(mode=0o700, parents=True)
    started = start(directory, 0o022)
    assert (started.returncode, started.stdout) == (0, "running\n"), started.stderr


@pytest.mark.slow
def test_a_stack_whose_folder_was_deleted_begins_anew(directory: Path) -> None:
    directory.parent.chmod(0o700)  # a root stack's PostgreSQL is elsewhere then, and stays
    for _ in range(2):
        started = start(directory, 0o022)
        assert (started.returncode, started.stdout) == (0, "running\n"), started.stderr
        shutil.rmtree(directory)
    if os.geteuid() == 0:
        assert (outside(directory) / "data.former" / "PG_VERSION").exists(), "what was in there is not lost"


def test_every_user_passes_through_a_folder_made_under_a_closed_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        passable(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert [oct((tmp_path / name).stat().st_mode & 0o777) for name in ("a", "a/b")] == ["0o755", "0o755"]


def test_programs_that_were_unpacked_under_a_closed_umask_are_opened(tmp_path: Path) -> None:
    for name, mode in (("program", 0o700), ("library", 0o600)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    assert not readable(tmp_path, STRANGER)
    open_to_all(tmp_path)
    assert readable(tmp_path, STRANGER)
    assert [oct((tmp_path / name).stat().st_mode & 0o777) for name in ("program", "library")] == ["0o755", "0o644"]
