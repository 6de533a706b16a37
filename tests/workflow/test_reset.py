"""`temporal workflow reset`: to whatever point, one true outcome, and everything is as that outcome says."""

import pytest
from temporalio.client import WorkflowExecutionStatus

from constitution.messages import Outcome
from constitution.release import CurrentConstitution, Standing
from tests.helpers import eventually
from tests.workflow import outcomes
from tests.workflow.outcomes import Handle
from tests.workflow.town import LEAF, SOON, Proposal, Town

pytestmark = pytest.mark.timeout(300)


async def reset(town: Town, handle: Handle, activity: str | None) -> Handle:
    """Reset by Temporal's command line; return the run that it became.

    Args:
        activity: the first activity of this type is scheduled anew; None: the whole run begins anew.
    """
    point = ("--type", "FirstWorkflowTask")
    if activity is not None:
        scheduled = (
            event.activity_task_scheduled_event_attributes
            for event in (await handle.fetch_history()).events
            if event.HasField("activity_task_scheduled_event_attributes")
        )
        task = next(s.workflow_task_completed_event_id for s in scheduled if s.activity_type.name == activity)
        point = ("--event-id", str(task))
    before = (await town.run(handle.id).describe()).run_id
    code, _, err = await town.temporal("workflow", "reset", "--workflow-id", handle.id, *point, "--reason", "a test")
    assert code == 0, err
    became = (await town.run(handle.id).describe()).run_id
    assert became != before
    return town.client.get_workflow_handle(handle.id, run_id=became)


async def closed(town: Town, handle: Handle) -> None:
    """Wait until the whole family has closed."""

    async def all_closed() -> bool:
        opened = [run for run in await town.open_runs() if handle.id in run or "rollback" in run]
        assert opened == [], opened
        return True

    await eventually(all_closed, SOON)


async def synced(town: Town) -> tuple[Handle, Proposal]:
    """An update that is live, unconfirmed, and waits for a target that stands still."""
    handle, proposal = await town.approved()
    await town.until_step(handle, "sync")
    return handle, proposal


@pytest.mark.parametrize(
    "point", ["load_release", pytest.param("prove_published", marks=pytest.mark.slow)], ids=["before", "after"]
)
async def test_a_published_update_is_reset_to_before_or_after_its_publish(
    town: Town, live: CurrentConstitution, point: str
) -> None:
    async with town.configured(sync=60), town.paused(LEAF):
        handle, proposal = await synced(town)
        again = await reset(town, handle, point)
        await town.until_step(again, "sync")
        await town.go_on(LEAF)
        release = await outcomes.completed(town, again, proposal)
        await closed(town, handle)
    assert release.generation == live.generation + 1  # the second load was answered with the first one's release
    guard = await town.guard_of(handle)
    assert (await guard.describe()).status is WorkflowExecutionStatus.COMPLETED
    assert "histories archived in" in (await town.end(guard)).result


@pytest.mark.slow
async def test_a_run_that_was_reset_is_still_guarded(town: Town, live: CurrentConstitution) -> None:
    async with town.configured(sync=60), town.paused(LEAF):
        handle, proposal = await synced(town)
        again = await reset(town, handle, "prove_published")
        await town.until_step(again, "sync")
        await again.terminate("an operator's second mistake")
        await town.go_on(LEAF)
        await closed(town, handle)
        await outcomes.undone(town, proposal, live)
    assert "was rolled back as generation" in (await town.end(await town.guard_of(handle))).result


async def test_a_published_update_that_begins_anew_is_undone_first(town: Town, live: CurrentConstitution) -> None:
    """It finds its own release live, which its document does not follow: refused. Its guard undoes that release."""
    async with town.configured(sync=60), town.paused(LEAF):
        handle, proposal = await synced(town)
        again = await reset(town, handle, None)
        await town.go_on(LEAF)
        end = await town.end(again)
        await closed(town, handle)
        await outcomes.undone(town, proposal, live)
    assert end.type == "Rejected"


@pytest.mark.slow
async def test_an_update_at_the_board_is_reset_to_its_gate_and_asks_again(
    town: Town, live: CurrentConstitution
) -> None:
    proposal = await town.propose()
    handle = await town.update(proposal)
    await town.until_step(handle, "board", "waiting")
    again = await reset(town, handle, "run_regression_gate")
    await town.approve(again, proposal)
    release = await outcomes.completed(town, again, proposal)
    assert release.generation == live.generation + 1


@pytest.mark.slow
async def test_an_update_at_the_board_that_begins_anew_is_another_update(town: Town, live: CurrentConstitution) -> None:
    proposal = await town.propose()
    handle = await town.update(proposal)
    first = await town.until_step(handle, "board", "waiting")
    again = await reset(town, handle, None)
    status = await town.until_step(again, "board", "waiting")
    assert status.update_id != first.update_id
    await town.approve(again, proposal)
    release = await outcomes.completed(town, again, proposal)
    await closed(town, handle)
    assert release.generation == live.generation + 1
    told = town.reads.told()
    assert {f"{first.update_id}/rejected", f"{status.update_id}/completed"} <= set(told)


@pytest.mark.slow
async def test_a_completed_update_is_reset_and_nothing_happens_twice(town: Town, live: CurrentConstitution) -> None:
    handle, proposal = await town.approved()
    await outcomes.completed(town, handle, proposal)
    await closed(town, handle)
    again = await reset(town, handle, "load_release")
    release = await outcomes.completed(town, again, proposal)
    assert release.generation == live.generation + 1
    assert [entry.standing for entry in release.standings] == [Standing.CONFIRMED]


@pytest.mark.slow
@pytest.mark.usefixtures("live")
async def test_an_update_that_was_followed_by_another_is_reset_and_stays_history(town: Town) -> None:
    handle, proposal = await town.approved()
    await outcomes.completed(town, handle, proposal)
    await closed(town, handle)
    next_one = await town.completed()
    newest = await town.live()
    again = await reset(town, handle, "load_release")
    end = await town.end(again)
    assert (end.type, end.result["outcome"]) == (None, Outcome.COMPLETED), end.message
    await closed(town, handle)
    assert await town.live() == newest
    assert newest.checksum == next_one.checksum
    assert len(town.reads.told_about(proposal.version, "went live and was confirmed")) == 1
    assert town.reads.told_about(proposal.version, "rejected") == []


@pytest.mark.slow
async def test_an_update_that_was_rolled_back_is_reset_and_stays_rolled_back(
    town: Town, live: CurrentConstitution
) -> None:
    async with town.paused(LEAF):
        handle, proposal = await synced(town)
        await handle.execute_update("abort", {"reason": "a mistake"})
        await town.until(handle, lambda s: s.rollback_workflow is not None)
        await town.go_on(LEAF)
        await outcomes.rolled_back(town, handle, proposal, live)
    await closed(town, handle)
    again = await reset(town, handle, "load_release")
    await outcomes.rolled_back(town, again, proposal, live)
    assert town.reads.told_about(proposal.version, "rejected") == []


@pytest.mark.parametrize(
    "point",
    [
        "load_restored",
        pytest.param("acquire_lease", marks=pytest.mark.slow),
        pytest.param("sync_targets", marks=pytest.mark.slow),
        pytest.param("record_standing", marks=pytest.mark.slow),
    ],
    ids=["load", "lease", "sync", "standing"],
)
async def test_a_finished_rollback_is_reset_and_finds_its_work_done(
    town: Town, live: CurrentConstitution, point: str
) -> None:
    proposal = await town.completed()
    bad = (await town.live()).generation
    handle = await town.start_run("ConstitutionRollback", town.rollback_id(bad), {"reason": "found bad"})
    first = await town.end(handle)
    await closed(town, handle)
    undoing = await outcomes.undone(town, proposal, live)
    again = await reset(town, handle, point)
    end = await town.end(again)
    assert (end.type, end.result["generation"]) == (None, first.result["generation"]), end.message
    await closed(town, handle)
    assert await outcomes.undone(town, proposal, live) == undoing  # told once, archived once, released once
    assert (await town.live()).generation == undoing.generation
