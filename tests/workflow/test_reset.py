"""`temporal workflow reset`: to whatever point, one true outcome, and everything is as that outcome says."""

import pytest
from temporalio.client import WorkflowExecutionStatus

from constitution.messages import Outcome
from constitution.release import CurrentConstitution, Standing
from tests.helpers import eventually
from tests.workflow import outcomes
from tests.workflow.outcomes import Handle
from tests.world.author import Proposal
from tests.world.environment import LEAF, SOON, RunningEnvironment

pytestmark = pytest.mark.timeout(300)


async def reset(env: RunningEnvironment, handle: Handle, activity: str | None) -> Handle:
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
    before = (await env.run(handle.id).describe()).run_id
    code, _, err = await env.temporal("workflow", "reset", "--workflow-id", handle.id, *point, "--reason", "a test")
    assert code == 0, err
    became = (await env.run(handle.id).describe()).run_id
    assert became != before
    return env.client.get_workflow_handle(handle.id, run_id=became)


async def closed(env: RunningEnvironment, handle: Handle) -> None:
    """Wait until the whole family has closed."""

    async def all_closed() -> bool:
        opened = [run for run in await env.open_runs() if handle.id in run or "rollback" in run]
        assert opened == [], opened
        return True

    await eventually(all_closed, SOON)


async def synced(env: RunningEnvironment) -> tuple[Handle, Proposal]:
    """An update that is live, unconfirmed, and waits for a target that stands still."""
    handle, proposal = await env.approved()
    await env.until_step(handle, "sync")
    return handle, proposal


@pytest.mark.parametrize(
    "point", ["load_release", pytest.param("prove_published", marks=pytest.mark.slow)], ids=["before", "after"]
)
async def test_a_published_update_is_reset_to_before_or_after_its_publish(
    env: RunningEnvironment, live: CurrentConstitution, point: str
) -> None:
    async with env.configured(sync=60), env.paused(LEAF):
        handle, proposal = await synced(env)
        again = await reset(env, handle, point)
        await env.until_step(again, "sync")
        await env.go_on(LEAF)
        release = await outcomes.completed(env, again, proposal)
        await closed(env, handle)
    assert release.generation == live.generation + 1  # the second load was answered with the first one's release
    guard = await env.guard_of(handle)
    assert (await guard.describe()).status is WorkflowExecutionStatus.COMPLETED
    assert "histories archived in" in (await env.end(guard)).result


@pytest.mark.slow
async def test_a_run_that_was_reset_is_still_held(env: RunningEnvironment, live: CurrentConstitution) -> None:
    """Temporal gives it the hold again, which counts once; constitution-service says that it stands."""
    async with env.configured(sync=60), env.paused(LEAF):
        handle, proposal = await synced(env)
        await env.steer(handle, "hold", "wait for me")
        again = await reset(env, handle, "prove_published")
        await env.until_step(again, "sync")
        await env.go_on(LEAF)
        status = await env.until_step(again, "watch", "waiting")
        assert "held by olga: wait for me" in status.waiting_for
        assert (await env.service.release(live.generation + 1)).standing is None
        await env.steer(again, "resume", "now I have looked")
        await outcomes.completed(env, again, proposal)
        await closed(env, handle)


@pytest.mark.slow
async def test_a_run_that_was_reset_is_still_guarded(env: RunningEnvironment, live: CurrentConstitution) -> None:
    async with env.configured(sync=60), env.paused(LEAF):
        handle, proposal = await synced(env)
        again = await reset(env, handle, "prove_published")
        await env.until_step(again, "sync")
        await again.terminate("an operator's second mistake")
        await env.go_on(LEAF)
        await closed(env, handle)
        await outcomes.undone(env, proposal, live)
    assert "was rolled back as generation" in (await env.end(await env.guard_of(handle))).result


@pytest.mark.slow
async def test_a_published_update_that_begins_anew_is_undone_first(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    """It finds its own release live, which its document does not follow: refused. Its guard undoes that release."""
    async with env.configured(sync=60), env.paused(LEAF):
        handle, proposal = await synced(env)
        again = await reset(env, handle, None)
        await env.go_on(LEAF)
        end = await env.end(again)
        await closed(env, handle)
        await outcomes.undone(env, proposal, live)
    assert end.type == "Rejected"


@pytest.mark.slow
async def test_an_update_at_the_board_is_reset_to_its_gate_and_asks_again(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    await env.until_step(handle, "board", "waiting")
    again = await reset(env, handle, "run_regression_gate")
    await env.approve(again, proposal)
    release = await outcomes.completed(env, again, proposal)
    assert release.generation == live.generation + 1


@pytest.mark.slow
async def test_an_update_at_the_board_that_begins_anew_is_another_update(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    first = await env.until_step(handle, "board", "waiting")
    again = await reset(env, handle, None)
    status = await env.until_step(again, "board", "waiting")
    assert status.update_id != first.update_id
    await env.approve(again, proposal)
    release = await outcomes.completed(env, again, proposal)
    await closed(env, handle)
    assert release.generation == live.generation + 1
    told = env.reads.told()
    assert {f"{first.update_id}/rejected", f"{status.update_id}/completed"} <= set(told)


@pytest.mark.slow
async def test_a_completed_update_is_reset_and_nothing_happens_twice(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    handle, proposal = await env.approved()
    await outcomes.completed(env, handle, proposal)
    await closed(env, handle)
    again = await reset(env, handle, "load_release")
    release = await outcomes.completed(env, again, proposal)
    assert release.generation == live.generation + 1
    assert [entry.standing for entry in release.standings] == [Standing.CONFIRMED]


@pytest.mark.slow
@pytest.mark.usefixtures("live")
async def test_an_update_that_was_followed_by_another_is_reset_and_stays_history(env: RunningEnvironment) -> None:
    handle, proposal = await env.approved()
    await outcomes.completed(env, handle, proposal)
    await closed(env, handle)
    next_one = await env.completed()
    newest = await env.live()
    again = await reset(env, handle, "load_release")
    end = await env.end(again)
    assert (end.type, end.result["outcome"]) == (None, Outcome.COMPLETED), end.message
    await closed(env, handle)
    assert await env.live() == newest
    assert newest.checksum == next_one.checksum
    assert len(env.reads.told_about(proposal.version, "went live and was confirmed")) == 1
    assert env.reads.told_about(proposal.version, "rejected") == []


@pytest.mark.slow
async def test_an_update_that_was_rolled_back_is_reset_and_stays_rolled_back(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    async with env.paused(LEAF):
        handle, proposal = await synced(env)
        await env.steer(handle, "abort", "a mistake")
        await env.until(handle, lambda s: s.rollback_workflow is not None)
        await env.go_on(LEAF)
        await outcomes.rolled_back(env, handle, proposal, live)
    await closed(env, handle)
    again = await reset(env, handle, "load_release")
    await outcomes.rolled_back(env, again, proposal, live)
    assert env.reads.told_about(proposal.version, "rejected") == []


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("load_restored", marks=pytest.mark.slow),
        pytest.param("acquire_lease", marks=pytest.mark.slow),
        pytest.param("sync_targets", marks=pytest.mark.slow),
        pytest.param("record_standing", marks=pytest.mark.slow),
    ],
    ids=["load", "lease", "sync", "standing"],
)
async def test_a_finished_rollback_is_reset_and_finds_its_work_done(
    env: RunningEnvironment, live: CurrentConstitution, point: str
) -> None:
    proposal = await env.completed()
    bad = (await env.live()).generation
    handle = await env.start_rollback(bad)
    first = await env.end(handle)
    await closed(env, handle)
    undoing = await outcomes.undone(env, proposal, live)
    again = await reset(env, handle, point)
    end = await env.end(again)
    assert (end.type, end.result["generation"]) == (None, first.result["generation"]), end.message
    await closed(env, handle)
    assert await outcomes.undone(env, proposal, live) == undoing  # told once, archived once, released once
    assert (await env.live()).generation == undoing.generation
