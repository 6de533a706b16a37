"""A few cells of the fault matrix in `make test-slow`; the whole of it is `make chaos`."""

import os
from pathlib import Path

import pytest

from deploy.embedded.stack_directory import CHECKOUT
from tests.faults.cells import Cell
from tests.faults.environment import ProxiedEnvironments
from tests.faults.runner import Runner

# Each kind of defence once: outbox and read-back; the point of no return and the undo, idempotency key and records.
CELLS = (
    Cell("update", "publish", "kafka", "down", "before"),
    Cell("rollback", "publish", "constitution-service", "killed", "after"),
    Cell("first_release", "publish", "worker", "killed", "after"),
    Cell("update", "broadcast", "slack", "reset", "after"),
)


@pytest.mark.slow  # in parts: test_constitution_service_relay.py, test_policy_engine.py, test_killed_worker.py
@pytest.mark.timeout(900)
async def test_a_sample_of_the_matrix_is_green() -> None:
    directory: Path = CHECKOUT / "var" / f"test-{os.getpid()}-faults"
    async with ProxiedEnvironments(directory=directory, say=lambda _: None) as environments:
        runner = Runner(environments)
        results = [await runner.run(cell) for cell in CELLS]
    assert {result.id: (result.findings, result.error, result.outcome) for result in results if not result.green} == {}
    assert all(sum(result.checks.values()) > 20 for result in results)
