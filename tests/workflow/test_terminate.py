"""Terminate runs no code of ours in the run that it ends: its guard, or its parent, answers it."""

import asyncio

import pytest
from temporalio.client import WorkflowExecutionStatus

from constitution.release import CurrentConstitution, Standing
from tests.helpers import eventually
from tests.workflow import outcomes
from tests.world.environment import LEAF, SOON, RunningEnvironment

pytestmark = pytest.mark.timeout(240)


async def test_an_update_that_is_terminated_after_the_load_is_rolled_back_by_its_guard(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    async with env.paused(LEAF):
        handle, proposal = await env.approved()
        await env.until_step(handle, "sync")
        guard = await env.guard_of(handle)
        code, _, err = await env.temporal(
            "workflow", "terminate", "--workflow-id", handle.id, "--reason", "an operator's mistake"
        )
        assert code == 0, err
        await env.go_on(LEAF)
    end = await env.end(guard)
    assert (end.status, end.type) == ("COMPLETED", None)
    assert "TERMINATED" in end.result
    assert "was rolled back as generation" in end.result
    undoing = await outcomes.undone(env, proposal, live)
    assert "histories archived in" in end.result
    description = await handle.describe()
    kept = [name for name in await asyncio.to_thread(env.reads.archived) if f"-{description.run_id}.json" in name]
    assert len(kept) == 2, kept  # into the folder of the bad release, and of the one that undid it
    assert any(f"-{undoing.generation}/" in name for name in kept)


@pytest.mark.slow
async def test_an_update_that_is_terminated_while_it_waits_for_the_board_is_told_as_rejected(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    await env.until_step(handle, "board", "waiting")
    guard = await env.guard_of(handle)
    await handle.terminate("an operator's mistake")
    end = await env.end(guard)
    assert (end.type, "nothing had been published" in end.result) == (None, True)
    await outcomes.untouched(env, proposal, live)
    assert len(env.reads.told_about(handle.id, "rejected")) == 1
    assert "guard.rejected" in await eventually(lambda: env.reads.audited(guard.id))
    rows = await asyncio.to_thread(env.reads.change_log_rows)
    (row,) = [row for row in rows if proposal.change_request in row]
    assert row[:6] == [proposal.version, "—", proposal.checksum, "rejected", proposal.change_request, "—"]
    # Its approvals are worth nothing any more: the update id is closed, and a new start begins anew.
    again, _ = await env.approved(proposal)
    await outcomes.completed(env, again, proposal)


async def test_an_update_that_is_terminated_after_confirmation_stays_live_and_its_guard_keeps_the_records(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    with env.slack_wire.holding("POST", "chat.postMessage", b"completed") as telling:
        await env.approve(handle, proposal)
        await telling.reached()
        guard = await env.guard_of(handle)
        await handle.terminate("an operator's mistake")
        telling.drop()
    end = await env.end(guard)
    assert "is confirmed and live" in end.result
    now = await env.live()
    assert (now.checksum, now.generation) == (proposal.checksum, live.generation + 1)
    assert len(env.reads.told_about(proposal.version, "went live and was confirmed")) == 1
    rows = await asyncio.to_thread(env.reads.change_log, now.generation)
    assert len(rows) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("live")
async def test_a_guard_that_is_terminated_is_started_again_by_its_parent(env: RunningEnvironment) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    await env.until_step(handle, "board", "waiting")
    guard = await env.guard_of(handle)
    first = (await guard.describe()).run_id
    await guard.terminate("an operator's mistake")

    async def again() -> bool:
        description = await guard.describe()
        return description.run_id != first and description.status is WorkflowExecutionStatus.RUNNING

    await eventually(again, SOON)
    await env.approve(handle, proposal)
    await outcomes.completed(env, handle, proposal)
    end = await env.end(env.run(guard.id))
    assert "histories archived in" in end.result


@pytest.mark.slow
async def test_a_rollback_that_is_terminated_is_started_again_by_its_parent(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    async with env.paused(LEAF):
        handle, proposal = await env.approved()
        await env.until_step(handle, "sync")
        load = "POST", "/v1/constitution/load"
        with env.service_wire.holding(*load) as late, env.service_wire.holding(*load) as own:
            await env.steer(handle, "abort", "a mistake")
            await late.reached()  # the rollback is about to restore
            rollback = env.run((await env.status(handle)).rollback_workflow or "")
            first = (await rollback.describe()).run_id
            await rollback.terminate("an operator's mistake")
            await own.reached()  # and so is its next run, which has found nothing restored,
            late.release()  # when the load of the first arrives late: one of them is the undo, the other must see it
            await late.over()
            own.release()
        await env.go_on(LEAF)
    await outcomes.rolled_back(env, handle, proposal, live)
    runs = dict(await env.runs_of(rollback.id))
    assert runs.pop(first) is WorkflowExecutionStatus.TERMINATED
    assert WorkflowExecutionStatus.COMPLETED in runs.values()


@pytest.mark.slow
async def test_a_rollback_by_hand_that_is_terminated_is_finished_by_its_guard(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.completed()
    bad = (await env.live()).generation
    with env.service_wire.holding("POST", "/standing") as stand:
        rollback = await env.start_rollback(bad)
        await stand.reached()
        guard = await env.guard_of(rollback)
        await rollback.terminate("an operator's mistake")
        stand.drop()
    end = await env.end(guard)
    assert (end.status, end.type) == ("COMPLETED", None), end.message
    undoing = await env.live()
    assert (undoing.checksum, undoing.generation) == (live.checksum, bad + 1)
    releases = {release.generation: release for release in await env.service.releases()}
    assert (releases[bad].standing, releases[bad + 1].standing) == (Standing.WITHDRAWN, Standing.CONFIRMED)
    assert len(env.reads.told_about(proposal.version, "rolled back")) == 1


@pytest.mark.slow  # another moment of the one above
async def test_a_rollback_terminated_after_it_withdrew_the_release_is_finished_by_its_guard(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.completed()
    bad = (await env.live()).generation
    async with env.paused(LEAF):
        rollback = await env.start_rollback(bad, "it spikes")
        await env.until_step(rollback, "sync")
        guard = await env.guard_of(rollback)
        await rollback.terminate("an operator's mistake")
        await env.go_on(LEAF)
    end = await env.end(guard)
    assert (end.status, end.type) == ("COMPLETED", None), end.message
    undoing = await env.live()
    assert (undoing.checksum, undoing.generation) == (live.checksum, bad + 1)
    releases = {release.generation: release for release in await env.service.releases()}
    assert (releases[bad].standing, releases[bad + 1].standing) == (Standing.WITHDRAWN, Standing.CONFIRMED)
    assert len(env.reads.told_about(proposal.version, "rolled back")) == 1
    assert await env.service.lease() is None
