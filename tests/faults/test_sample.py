"""A few cells of the fault matrix in every test run; the whole of it is `make chaos`."""

import os
from pathlib import Path

import pytest

from deploy.embedded.stack_directory import CHECKOUT
from tests.faults.cells import Cell
from tests.faults.environment import ProxiedEnvironments
from tests.faults.runner import Runner

# One environment, each kind of defence once: outbox, idempotency key, read-back, the point of no return, the undo.
SAMPLE = (
    Cell("first_release", "publish", "worker", "killed", "after"),
    Cell("update", "publish", "kafka", "down", "before"),
    Cell("update", "broadcast", "slack", "reset", "after"),
    Cell("rollback", "publish", "constitution-service", "killed", "after"),
)


@pytest.mark.timeout(600)
async def test_a_sample_of_the_matrix_is_green() -> None:
    directory: Path = CHECKOUT / "var" / f"test-{os.getpid()}-faults"
    async with ProxiedEnvironments(directory=directory, say=lambda _: None) as environments:
        runner = Runner(environments)
        results = [await runner.run(cell) for cell in SAMPLE]
    assert {result.id: (result.findings, result.error, result.outcome) for result in results if not result.green} == {}
    assert all(sum(result.checks.values()) > 20 for result in results)
