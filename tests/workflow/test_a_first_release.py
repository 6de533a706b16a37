"""The first release of all, where nothing is live: a failure withdraws it; Temporal's own command line makes it."""

import json
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pytest

from adapters.regression_gate import SUITES
from deploy.embedded.stack_directory import CHECKOUT
from tests.workflow import outcomes
from tests.world.environment import LEAF, Environments, RunningEnvironment

pytestmark = pytest.mark.timeout(240)
SHIPPED = pytest.mark.slow  # it takes six seconds of CPU a draft; test_regression_gate.py shows what it finds


@pytest.fixture
async def bare(environments: Environments, env: RunningEnvironment) -> RunningEnvironment:
    """An environment where nothing is live."""
    if await env.author.current() is None:
        return env
    await environments.leave()
    return await environments.running()


@pytest.mark.slow
async def test_a_first_release_that_is_not_obeyed_everywhere_is_withdrawn(bare: RunningEnvironment) -> None:
    async with bare.paused(LEAF):
        handle, proposal = await bare.approved()
        status = await bare.until(handle, lambda s: s.rollback_workflow is not None)
        assert status.outcome is None
        await bare.go_on(LEAF)
        end, undoing = await outcomes.rolled_back(bare, handle, proposal, None)
    assert LEAF in end.message
    assert "the constitution was withdrawn" in end.message
    assert undoing.checksum is None
    said = await bare.reads.live(bare.config)
    assert set(said.values()) == {(undoing.generation, None)}


@pytest.mark.parametrize(
    "gate", [pytest.param(None, id="small gate"), pytest.param(CHECKOUT / "tests", id="shipped gate", marks=SHIPPED)]
)
async def test_it_is_started_approved_and_completed_by_temporals_command_line(
    bare: RunningEnvironment, gate: Path | None
) -> None:
    queue, keys = bare.names.task_queue(), bare.files.directory / "keys"
    proposal = await bare.author.propose()
    workflow_id = bare.update_id(proposal.change_request)
    start = (
        *("workflow", "start", "--workflow-id", workflow_id, "--fail-existing", "--type", "ConstitutionUpdate"),
        *("--task-queue", queue, "--input", json.dumps(proposal.input)),
    )
    async with bare.configured(gate=gate) if gate else nullcontext():
        code, _, err = await bare.temporal(*start)
        assert code == 0, err
        code, _, err = await bare.temporal(*start)
        assert code != 0
        assert "already" in err

        handle = bare.run(workflow_id)
        await bare.until(handle, lambda s: s.evidence is not None, timedelta(seconds=120))
        messages = {}
        for person in ("alva", "bruno"):
            code, out, err = await bare.constitution(
                *("approve", workflow_id, "--key", str(keys / f"{person}.tsk"), "--print", "--yes")
            )
            assert code == 0, err
            messages[person] = out
        to = ("--workflow-id", workflow_id, "--name", "decide", "--input")
        code, _, err = await bare.temporal("workflow", "signal", *to, messages["alva"])
        assert code == 0, err
        await bare.until(handle, lambda s: s.approvers == ("alva",))
        code, out, err = await bare.temporal("workflow", "update", "execute", *to, messages["bruno"])
        assert code == 0, err
        assert "2 of 2" in out
        await outcomes.completed(bare, handle, proposal)
        status = await bare.status(handle)
        evidence = await bare.service.evidence(status.evidence or "")
        assert {suite.name: suite.tests > 1 for suite in evidence.suites} == dict.fromkeys(SUITES, gate is not None)


async def test_an_update_is_aborted_by_temporals_command_line(env: RunningEnvironment) -> None:
    before = await env.author.current()
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    await env.until_step(handle, "board", "waiting")
    code, _, err = await env.temporal(
        *("workflow", "signal", "--workflow-id", handle.id, "--name", "abort", "--input", '{"reason": "not today"}')
    )
    assert code == 0, err
    await outcomes.rejected(env, handle, proposal, before, "aborted: not today")
