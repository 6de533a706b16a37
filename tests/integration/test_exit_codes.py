"""Exit codes of the programs that use Temporal's core hold over many starts: see `constitution_client/exit.py`."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.world.files import CHECKOUT
from worker import CONNECT_FOR

AT_ONCE = 3  # processes side by side: the machine is shared, and the fault is not about load
PATIENCE = 150.0  # seconds, for one start; 25 at once on two cores take long to begin
WAITING = 25  # side by side where each only waits until it gives up

few_and_many = pytest.mark.parametrize("starts", [5, pytest.param(50, marks=pytest.mark.slow)])
pytestmark = pytest.mark.timeout(590)


async def start(settings: Mapping[str, str], *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", sys.executable, *arguments),
        env={"PATH": os.environ["PATH"], **settings},
        cwd=CHECKOUT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


async def code_of(process: asyncio.subprocess.Process) -> int:
    await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode is not None
    return process.returncode


async def codes(once: Callable[[], Awaitable[int]], starts: int, at_once: int = AT_ONCE) -> dict[int, int]:
    """How often which exit code was seen; a process that a signal ended has a negative one."""
    places = asyncio.Semaphore(at_once)

    async def in_turn() -> int:
        async with places:
            return await once()

    return Counter(await asyncio.gather(*(in_turn() for _ in range(starts))))


@pytest.mark.slow
@few_and_many
async def test_a_worker_that_polls_ends_with_0_at_sigterm(worker_settings: dict[str, str], starts: int) -> None:
    async def once() -> int:
        settings = worker_settings | {"METRICS_PORT": str(free_port())}
        process = await start(settings, str(CHECKOUT / "worker.py"))
        assert process.stderr is not None
        said = b""
        while b"worker: polling" not in said:
            said = await asyncio.wait_for(process.stderr.readline(), PATIENCE)
            assert said, "it ended before it polled"
        process.send_signal(signal.SIGTERM)
        return await code_of(process)

    assert await codes(once, starts) == {0: starts}


@pytest.mark.parametrize("starts", [2, pytest.param(50, marks=pytest.mark.slow)])  # it has not used the core yet
async def test_a_worker_with_bad_settings_ends_with_2(worker_settings: dict[str, str], starts: int) -> None:
    async def once() -> int:
        return await code_of(await start(worker_settings | {"METRICS_PORT": "0"}, str(CHECKOUT / "worker.py")))

    assert await codes(once, starts) == {2: starts}


async def test_a_build_without_a_deployment_is_a_bad_setting(worker_settings: dict[str, str]) -> None:
    process = await start(worker_settings | {"TEMPORAL_WORKER_BUILD_ID": "1.2.3"}, str(CHECKOUT / "worker.py"))
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 2
    assert b"- TEMPORAL_WORKER_BUILD_ID: " in said


@pytest.mark.slow
async def test_a_worker_without_temporal_gives_up_with_1(worker_settings: dict[str, str]) -> None:
    assert CONNECT_FOR.total_seconds() < PATIENCE

    async def once() -> int:
        settings = worker_settings | {"TEMPORAL_ADDRESS": "127.0.0.1:9", "METRICS_PORT": str(free_port())}
        return await code_of(await start(settings, str(CHECKOUT / "worker.py")))

    assert await codes(once, 50, WAITING) == {1: 50}


@pytest.mark.slow
@few_and_many
async def test_the_demo_with_a_wrong_argument_ends_with_2(tmp_path: Path, starts: int) -> None:
    async def once() -> int:
        return await code_of(await start({"HOME": str(tmp_path)}, "-m", "deploy.demo", "--nonsense"))

    assert await codes(once, starts) == {2: starts}
