"""A test that takes too long fails alone and says what it waited for; how long that is follows the machine."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from deploy.embedded.stack_directory import CHECKOUT
from tests.machine import MOST, pace, patience, stretch

SUITE = """
import asyncio
import time

import pytest

from tests.helpers import eventually


@pytest.mark.timeout(0.2)
class TestHanging:
    async def test_waits(self) -> None:
        def answer() -> list[str]:
            assert False, "the lamp is red"

        await eventually(answer)

    async def test_swallows_nothing(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)

    def test_blocks(self) -> None:
        time.sleep(300)


async def test_comes_after() -> None:
    await asyncio.sleep(0)


@pytest.mark.timeout(0.2)
async def test_has_a_timeout_of_its_own() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()


def test_comes_last() -> None:
    pass
"""


@pytest.mark.slow
def test_a_test_over_its_time_fails_alone_and_says_what_it_waited_for(tmp_path: Path) -> None:
    (tmp_path / "test_slow_ones.py").write_text(SUITE)
    command = (
        *(
            sys.executable,
            "-m",
            "pytest",
            str(tmp_path),
            "-p",
            "tests.conftest",
            "-c",
            str(CHECKOUT / "pyproject.toml"),
        ),
        *("-n", "1", "-p", "no:cacheprovider", "--color=no"),
    )
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)  # noqa: S603
    assert "3 failed, 3 passed" in done.stdout, done.stdout
    assert "the test took longer than" in done.stdout
    assert "waited for TestHanging.test_waits.<locals>.answer, last: AssertionError('the lamp is red" in done.stdout
    assert "await asyncio.Event().wait()" in done.stdout
    assert "crashed" not in done.stdout


@pytest.mark.parametrize(
    ("slower", "load", "cores", "factor"),
    [(1, 0, 2, 1), (0.5, 0.3, 8, 1), (1, 3, 2, 1.5), (2, 2, 2, 2), (2, 6, 2, 6), (3, 40, 2, MOST)],
)
def test_deadlines_follow_the_machine(slower: float, load: float, cores: int, factor: float) -> None:
    assert stretch(slower, load, cores) == factor


def test_the_factor_is_measured_once() -> None:
    assert patience(timedelta(seconds=20)) == timedelta(seconds=20) * pace()
    assert 1 <= pace() <= MOST
