"""``constitution drill`` for real: it starts its own servers, takes minutes, and leaves nothing behind."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from deploy.drill.drill import AFTER_THE_BOARD, BEFORE_THE_BOARD, ROLLBACK
from deploy.embedded.stack_directory import CHECKOUT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


async def test_a_drill_kills_the_worker_in_each_step_and_every_outcome_is_right(tmp_path: Path) -> None:
    strangers = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "TEMPORAL_ADDRESS": "127.0.0.1:1"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "constitution_client", "drill", "--directory", str(tmp_path / "drill"), "--json"),
        env={**os.environ, **strangers},
        cwd=CHECKOUT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode() + out.decode()
    said = json.loads(out)
    assert said["passed"]
    steps = {(kill["run"], kill["step"]) for kill in said["kills"]}
    assert steps == {("update", step) for step in (*BEFORE_THE_BOARD, "board", *AFTER_THE_BOARD)} | {
        ("rollback", step) for step in ROLLBACK
    }
    assert all(kill["polling_s"] > 0 for kill in said["kills"])
    assert any(kill["moment"] == "running" and kill["attempts"] > 1 for kill in said["kills"])
    assert not (tmp_path / "drill").exists()
