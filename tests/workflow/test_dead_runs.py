"""Reconciliation finishes what dead runs left: their release is undone or told, and nobody is blocked.

In an environment of its own, where it runs every three seconds and judges runs that have been closed for three.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from constitution.release import CurrentConstitution, Release, Standing
from tests.helpers import eventually
from tests.workflow import outcomes
from tests.workflow.conftest import at_rest
from tests.workflow.reconciling import all_well, reconciled
from tests.world.author import Proposal
from tests.world.environment import LEAF, SOON, Environments, RunningEnvironment

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def env(minded: Environments, request: pytest.FixtureRequest) -> AsyncIterator[RunningEnvironment]:
    """A reconciled environment, at rest around each test, with no dead run left that would be given a guard."""
    async for env in at_rest(minded, request, first=all_well):
        yield env


async def kill_all(env: RunningEnvironment) -> None:
    """Terminate every run but reconciliation itself, again and again, until none is left: they start each other."""

    async def none_is_left() -> bool:
        family = [run for run in await env.open_runs() if "reconcile" not in run]
        for run in family:
            with_handle = env.client.get_workflow_handle(run)
            try:
                await with_handle.terminate("the test kills the whole family")
            except RPCError:
                continue  # it ended by itself meanwhile
        return not family

    await eventually(none_is_left)


async def undone(env: RunningEnvironment, generation: int) -> Release:
    """Wait until a generation has been undone, and that is confirmed; return what undid it."""

    async def confirmed() -> Release | None:
        releases = await env.service.releases()
        undoing = [r for r in releases if r.rollback_of == generation and r.standing is Standing.CONFIRMED]
        return undoing[0] if undoing else None

    release = await eventually(confirmed, SOON)
    assert release is not None
    return release


async def guarded_again(env: RunningEnvironment, handle: WorkflowHandle[Any, Any]) -> None:
    """Wait until reconciliation has started a dead run's guard again, and that has done all its work."""
    told = await eventually(lambda: reconciled(env, f"run-without-outcome: {handle.id}"), SOON)
    assert {event["api"]["operation"] for event in told} == {"reconcile.repaired"}
    await env.rest()


async def mid_sync(env: RunningEnvironment) -> tuple[WorkflowHandle[Any, Any], Proposal, int]:
    """An update that has been published, and waits for a target that stands still."""
    handle, proposal = await env.approved()
    status = await env.until_step(handle, "sync")
    assert status.generation is not None
    return handle, proposal, status.generation


@pytest.mark.slow
async def test_update_and_guard_killed_after_the_load_are_undone(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    async with env.paused(LEAF):
        handle, proposal, generation = await mid_sync(env)
        await kill_all(env)
    killed = datetime.now(UTC)
    undoing = await undone(env, generation)
    assert undoing.checksum == live.checksum
    assert undoing.workflow["workflow_id"] == env.rollback_id(generation)
    assert (datetime.now(UTC) - killed).total_seconds() < 60
    await guarded_again(env, handle)
    await outcomes.undone(env, proposal, live)


@pytest.mark.slow
async def test_a_stranger_under_the_id_of_a_guard_does_not_keep_a_bad_release_live(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    async with env.paused(LEAF):
        handle, proposal, generation = await mid_sync(env)
        guard = await env.guard_of(handle)
        taken = await env.client.start_workflow(
            "ConstitutionGuard",
            id=guard.id,
            task_queue=f"{env.names.task_queue()}-of-nobody",
            id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING,
        )
        await handle.terminate("the test kills the update as well")
    await undone(env, generation)
    await env.rest()
    await outcomes.undone(env, proposal, live)
    assert (await taken.describe()).status is WorkflowExecutionStatus.RUNNING
    await taken.terminate("the test is over")


@pytest.mark.slow
async def test_a_rollback_killed_with_its_whole_family_is_done_again(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    async with env.paused(LEAF):
        handle, proposal, generation = await mid_sync(env)
        with env.service_wire.holding("POST", "/v1/constitution/load") as load:
            await env.steer(handle, "abort", "the test wants a rollback")
            await load.reached()
            await kill_all(env)
            load.drop()
    undoing = await undone(env, generation)
    assert undoing.checksum == live.checksum
    await env.rest()
    await outcomes.undone(env, proposal, live)


@pytest.mark.slow
async def test_a_late_load_of_a_killed_rollback_is_confirmed_by_its_successor(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    async with env.paused(LEAF):
        handle, proposal, generation = await mid_sync(env)
        with env.service_wire.holding("POST", "/v1/constitution/load") as load:
            await env.steer(handle, "abort", "the test wants a rollback")
            await load.reached()
            await kill_all(env)
            load.release()
            await load.over()
    await undone(env, generation)
    await env.rest()
    await outcomes.undone(env, proposal, live)


@pytest.mark.slow
async def test_an_update_killed_with_the_lease_is_rejected_and_blocks_nobody(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    with env.service_wire.holding("POST", "/v1/constitution/load") as load:
        handle, proposal = await env.approved()
        await load.reached()
        assert await env.service.lease() is not None
        update_id = (await env.status(handle)).update_id
        await kill_all(env)

        async def given_back() -> bool:
            return await env.service.lease() is None

        await eventually(given_back, SOON)
        load.release()
        await load.over()
    await guarded_again(env, handle)
    assert len(env.reads.told()[f"{update_id}/rejected"]) == 1
    await outcomes.untouched(env, proposal, live)
    await env.completed()


@pytest.mark.slow
async def test_an_update_killed_after_confirmation_is_told_and_archived(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    handle, proposal = await env.approved()
    env.slack_wire.cut()
    status = await env.until_step(handle, "confirm", "done")
    await kill_all(env)
    env.slack_wire.repair()
    assert status.generation is not None

    async def archived() -> bool:
        return len(await asyncio.to_thread(env.reads.change_log, status.generation or 0)) == 1

    await eventually(archived, SOON)
    await guarded_again(env, handle)
    assert len(env.reads.told_about(proposal.version, "went live and was confirmed")) == 1
    current = await env.author.current()
    assert current is not None
    assert (current.generation, current.checksum) == (live.generation + 1, proposal.checksum)


@pytest.mark.slow
async def test_an_update_that_is_reset_and_then_terminated_leaves_no_unconfirmed_release_live(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    """A reset takes a run's children away from it: nothing wakes its guard any more."""
    async with env.paused(LEAF):
        handle, _, generation = await mid_sync(env)
        guard = await env.guard_of(handle)
        async with env.paused("worker"):  # the run that it is reset to never gets as far as a guard of its own
            code, _, err = await env.temporal(
                *("workflow", "reset", "--workflow-id", handle.id, "--type", "FirstWorkflowTask", "--reason", "a test")
            )
            assert code == 0, err
            await env.run(handle.id).terminate("before it has begun")
        await env.go_on(LEAF)
        await undone(env, generation)
    assert "was rolled back" in (await env.end(guard)).result
    told = reconciled(env, f"guard-asleep: {guard.id}")
    assert {event["api"]["operation"] for event in told} == {"reconcile.repaired"}
    assert (await env.live()).checksum == live.checksum
