"""An approval that is typed while the regression gate runs waits for it, and says so."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from constitution.release import CurrentConstitution
from deploy.embedded.stack_directory import CHECKOUT
from tests.world.environment import RunningEnvironment
from tests.world.gate import GATE_CASE, make_gate

pytestmark = pytest.mark.timeout(240)

HELD = """

def test_the_gate_takes_as_long_as_it_is_held(tmp_path):
    import time

    deadline = time.monotonic() + 100
    while not pathlib.Path({free!r}).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
"""


@contextmanager
def held(gate: Path, free: Path) -> Iterator[None]:
    """Have a gate end only when the file ``free`` is there, until the block ends."""
    (gate / "policy" / "test_draft.py").write_text(GATE_CASE + HELD.format(free=str(free)))
    try:
        yield
    finally:
        make_gate(gate)


@pytest.mark.slow
async def test_an_approval_typed_before_the_gate_has_ended_waits_for_it(
    env: RunningEnvironment, live: CurrentConstitution, tmp_path: Path
) -> None:
    free = tmp_path / "free"
    key = str(env.files.directory / "keys" / "alva.tsk")
    with held(env.gate, free):
        proposal = await env.author.propose()
        code, _, err = await env.constitution(
            *("update", "--checksum", proposal.checksum, "--change-request", proposal.change_request)
        )
        assert code == 0, err
        approve = ["approve", proposal.change_request, "--key", key, "--yes", "--text"]
        code, _, err = await env.constitution(*approve, "--no-wait")
        assert code == 4
        assert "not" in err

        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "constitution_client", *approve),
            cwd=CHECKOUT,
            env={**os.environ, "CONSTITUTION_ENV_FILE": str(env.directory / "stack.env")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        said: list[bytes] = []
        async with asyncio.timeout(60):
            while b"waiting for the gate" not in (line := await process.stderr.readline()):
                assert line, said
                said.append(line)
        free.touch()
        async with asyncio.timeout(60):
            out, err_bytes = await process.communicate()
        assert process.returncode == 0, err_bytes
        assert b"approval of alva counted: 1 of 2" in out
        code, _, err = await env.constitution("abort", proposal.change_request, "--reason", "the end of the test")
        assert code == 0, err
        # A run that has ended is not waited for.
        code, _, err = await env.constitution(*approve)
        assert code != 0
    assert await env.author.current() == live
