"""What deletes or replaces a stack leaves no server of another one without files, and says whom it would disturb."""

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.__main__ import stop_command, the_only_demo
from deploy.embedded.control import StackError
from deploy.embedded.leftovers import marked
from deploy.embedded.stack import IN_USE, Stack
from deploy.embedded.stack_directory import CHECKOUT
from tests.integration.supervised import stack_id


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Stack]:
    """The stack of a demo that was kept."""
    stack = Stack(tmp_path / "var" / "demo" / "stack", ("valkey",), environment={}, attached=False)
    stack.start()
    yield stack
    stack.erase()


def clean(directory: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "deploy.embedded", "clean", "--directory", str(directory)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)  # noqa: S603


def test_clean_ends_a_kept_demo_with_its_data(tmp_path: Path, kept: Stack) -> None:
    mark = f"{stack_id(kept.directory)}:"
    assert marked(mark)
    done = clean(tmp_path / "var")
    assert (done.returncode, done.stderr) == (0, "")
    assert not marked(mark)
    assert not (tmp_path / "var").exists()


def test_clean_takes_nothing_from_a_program_that_still_runs(tmp_path: Path) -> None:
    with Stack(tmp_path / "var" / "test-1", ("valkey",), environment={}) as stack:
        done = clean(tmp_path / "var")
        assert (done.returncode, done.stdout) == (1, "")
        assert f"a program that still runs uses the servers in {stack.directory}; wait for it" in done.stderr
        assert [status.state for status in stack.status()] == ["running"]
    assert clean(tmp_path / "var").returncode == 0


def test_clean_takes_nothing_from_a_demo_that_still_runs(tmp_path: Path, kept: Stack) -> None:
    with the_only_demo(tmp_path / "var" / "demo"):
        done = clean(tmp_path / "var")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"a program that still runs uses {tmp_path / 'var' / 'demo'}; wait for it" in done.stderr
    assert [status.state for status in kept.status()] == ["running"]


def test_a_demo_does_not_end_one_that_was_kept(tmp_path: Path, kept: Stack) -> None:
    with the_only_demo(tmp_path / "var" / "demo") as refused:
        assert refused.endswith(f"to end it: {stop_command(kept.directory)}")
    assert [status.state for status in kept.status()] == ["running"]


def test_two_demos_do_not_run_in_one_checkout(tmp_path: Path) -> None:
    with (tmp_path / IN_USE).open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with the_only_demo(tmp_path) as refused:
            assert refused.startswith(f"another demo runs in {tmp_path}")
    with the_only_demo(tmp_path) as refused:
        assert not refused


def test_a_machine_without_setpriv_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match=r"cannot run the stack: it has no setpriv .* Linux 5\.3 or newer"):
        Stack(tmp_path / "var", ("valkey",), environment={}).start()
    assert not (tmp_path / "var").exists()
