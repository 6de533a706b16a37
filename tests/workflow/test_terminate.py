"""Terminate runs no code of ours in the run that it ends: its guard, or its parent, answers it."""

import asyncio

import pytest
from temporalio.client import WorkflowExecutionStatus

from constitution.release import CurrentConstitution, Standing
from tests.helpers import eventually
from tests.workflow import outcomes
from tests.workflow.town import LEAF, SOON, Town

pytestmark = pytest.mark.timeout(240)


async def test_an_update_that_is_terminated_after_the_load_is_rolled_back_by_its_guard(
    town: Town, live: CurrentConstitution
) -> None:
    async with town.paused(LEAF):
        handle, proposal = await town.approved()
        await town.until_step(handle, "sync")
        guard = await town.guard_of(handle)
        code, _, err = await town.temporal(
            "workflow", "terminate", "--workflow-id", handle.id, "--reason", "an operator's mistake"
        )
        assert code == 0, err
        await town.go_on(LEAF)
    end = await town.end(guard)
    assert (end.status, end.type) == ("COMPLETED", None)
    assert "TERMINATED" in end.result
    assert "was rolled back as generation" in end.result
    undoing = await outcomes.undone(town, proposal, live)
    assert "histories archived in" in end.result
    description = await handle.describe()
    sealed = [name for name in await asyncio.to_thread(town.reads.archived) if f"-{description.run_id}.json" in name]
    assert len(sealed) == 2, sealed  # into the folder of the bad release, and of the one that undid it
    assert any(f"-{undoing.generation}/" in name for name in sealed)


async def test_an_update_that_is_terminated_while_it_waits_for_the_board_is_told_as_rejected(
    town: Town, live: CurrentConstitution
) -> None:
    proposal = await town.propose()
    handle = await town.update(proposal)
    await town.until_step(handle, "board", "waiting")
    guard = await town.guard_of(handle)
    await handle.terminate("an operator's mistake")
    end = await town.end(guard)
    assert (end.type, "nothing had been published" in end.result) == (None, True)
    await outcomes.untouched(town, proposal, live)
    assert len(town.reads.told_about(handle.id, "rejected")) == 1
    assert "guard.rejected" in await eventually(lambda: town.reads.audited(guard.id))
    # Its approvals are worth nothing any more: the update id is closed, and a new start begins anew.
    again, _ = await town.approved(proposal)
    await outcomes.completed(town, again, proposal)


async def test_an_update_that_is_terminated_after_confirmation_stays_live_and_its_guard_keeps_the_records(
    town: Town, live: CurrentConstitution
) -> None:
    proposal = await town.propose()
    handle = await town.update(proposal)
    with town.slack_wire.holding("POST", "chat.postMessage", b"completed") as telling:
        await town.approve(handle, proposal)
        await telling.reached()
        guard = await town.guard_of(handle)
        await handle.terminate("an operator's mistake")
        telling.drop()
    end = await town.end(guard)
    assert "is confirmed and live" in end.result
    now = await town.live()
    assert (now.checksum, now.generation) == (proposal.checksum, live.generation + 1)
    assert len(town.reads.told_about(proposal.version, "went live and was confirmed")) == 1
    rows = await asyncio.to_thread(town.reads.change_log, now.generation)
    assert len(rows) == 1


@pytest.mark.usefixtures("live")
async def test_a_guard_that_is_terminated_is_started_again_by_its_parent(town: Town) -> None:
    proposal = await town.propose()
    handle = await town.update(proposal)
    await town.until_step(handle, "board", "waiting")
    guard = await town.guard_of(handle)
    first = (await guard.describe()).run_id
    await guard.terminate("an operator's mistake")

    async def again() -> bool:
        description = await guard.describe()
        return description.run_id != first and description.status is WorkflowExecutionStatus.RUNNING

    await eventually(again, SOON)
    await town.approve(handle, proposal)
    await outcomes.completed(town, handle, proposal)
    end = await town.end(town.run(guard.id))
    assert "histories archived in" in end.result


async def test_a_rollback_that_is_terminated_is_started_again_by_its_parent(
    town: Town, live: CurrentConstitution
) -> None:
    async with town.paused(LEAF):
        handle, proposal = await town.approved()
        await town.until_step(handle, "sync")
        load = "POST", "/v1/constitution/load"
        with town.service_wire.holding(*load) as late, town.service_wire.holding(*load) as own:
            await handle.execute_update("abort", {"reason": "a mistake"})
            await late.reached()  # the rollback is about to restore
            rollback = town.run((await town.status(handle)).rollback_workflow or "")
            first = (await rollback.describe()).run_id
            await rollback.terminate("an operator's mistake")
            await own.reached()  # and so is its next run, which has found nothing restored,
            late.release()  # when the load of the first arrives late: one of them is the undo, the other must see it
            await late.over()
            own.release()
        await town.go_on(LEAF)
    await outcomes.rolled_back(town, handle, proposal, live)
    runs = dict(await town.runs_of(rollback.id))
    assert runs.pop(first) is WorkflowExecutionStatus.TERMINATED
    assert WorkflowExecutionStatus.COMPLETED in runs.values()


async def test_a_rollback_by_hand_that_is_terminated_is_finished_by_its_guard(
    town: Town, live: CurrentConstitution
) -> None:
    proposal = await town.completed()
    bad = (await town.live()).generation
    with town.service_wire.holding("POST", "/standing") as stand:
        rollback = await town.start_run("ConstitutionRollback", town.rollback_id(bad), {"reason": "found bad"})
        await stand.reached()
        guard = await town.guard_of(rollback)
        await rollback.terminate("an operator's mistake")
        stand.drop()
    end = await town.end(guard)
    assert (end.status, end.type) == ("COMPLETED", None), end.message
    undoing = await town.live()
    assert (undoing.checksum, undoing.generation) == (live.checksum, bad + 1)
    releases = {release.generation: release for release in await town.service.releases()}
    assert (releases[bad].standing, releases[bad + 1].standing) == (Standing.WITHDRAWN, Standing.CONFIRMED)
    assert len(town.reads.told_about(proposal.version, "rolled back")) == 1


async def test_a_rollback_terminated_after_it_withdrew_the_release_is_finished_by_its_guard(
    town: Town, live: CurrentConstitution
) -> None:
    proposal = await town.completed()
    bad = (await town.live()).generation
    request = {"reason": "it spikes"}
    async with town.paused(LEAF):
        rollback = await town.start_run("ConstitutionRollback", town.rollback_id(bad), request)
        await town.until_step(rollback, "sync")
        guard = await town.guard_of(rollback)
        await rollback.terminate("an operator's mistake")
        await town.go_on(LEAF)
    end = await town.end(guard)
    assert (end.status, end.type) == ("COMPLETED", None), end.message
    undoing = await town.live()
    assert (undoing.checksum, undoing.generation) == (live.checksum, bad + 1)
    releases = {release.generation: release for release in await town.service.releases()}
    assert (releases[bad].standing, releases[bad + 1].standing) == (Standing.WITHDRAWN, Standing.CONFIRMED)
    assert len(town.reads.told_about(proposal.version, "rolled back")) == 1
    assert await town.service.lease() is None
