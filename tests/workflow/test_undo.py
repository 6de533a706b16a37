"""Before confirmation everything is undone: cancel, abort, a step that fails past its deadline; and what only waits."""

from datetime import UTC, datetime, timedelta

import pytest

from constitution.messages import Phase
from constitution.release import CurrentConstitution, Standing
from tests.helpers import eventually
from tests.workflow import outcomes
from tests.world.environment import LEAF, RunningEnvironment, needs_a_person, state_of

pytestmark = pytest.mark.timeout(240)


async def test_a_cancel_of_what_is_live_is_refused_with_the_command_that_signs_an_abort(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    async with env.paused(LEAF):
        handle, proposal = await env.approved()
        await env.until_step(handle, "sync")
        code, _, err = await env.temporal("workflow", "cancel", "--workflow-id", handle.id)
        assert code == 0, err
        status = await env.until(handle, lambda s: bool(s.refusals))
        assert f"constitution order abort {handle.id} --print" in status.refusals[-1]
        await eventually(lambda: "cancel.refused" in env.reads.audited(handle.id))
        await env.go_on(LEAF)
        release = await outcomes.completed(env, handle, proposal)
    assert release.generation == live.generation + 1


@pytest.mark.slow  # test_orders.py: an abort of what is live names who signed it
async def test_abort_in_mid_sync_rolls_back(env: RunningEnvironment, live: CurrentConstitution) -> None:
    async with env.paused(LEAF):
        handle, proposal = await env.approved()
        await env.until_step(handle, "sync")
        assert await env.steer(handle, "abort", "a mistake") == "stopping"
        await env.until(handle, lambda s: s.rollback_workflow is not None)
        await env.go_on(LEAF)
        end, _ = await outcomes.rolled_back(env, handle, proposal, live)
    assert "aborted by olga: a mistake" in end.message


@pytest.mark.slow
async def test_a_target_that_dies_in_mid_sync_is_named_and_joins_when_it_comes_back(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    await env.kill(LEAF)
    handle, proposal = await env.approved()
    end, undoing = await outcomes.rolled_back(env, handle, proposal, live)
    assert f"did not answer: {LEAF}" in end.message
    await env.restart(LEAF)
    said = await eventually(lambda: env.reads.live(env.config), timedelta(seconds=30))
    assert said[LEAF] == (undoing.generation, live.checksum)


async def test_a_load_that_arrives_after_its_undo_is_fenced(env: RunningEnvironment, live: CurrentConstitution) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    with env.service_wire.holding("POST", "/v1/constitution/load") as load:
        await env.approve(handle, proposal)
        await load.reached()
        await handle.execute_update("abort", {"reason": "too slow"})
        await outcomes.rejected(env, handle, proposal, live, "aborted: too slow")
        load.release()
        await load.over()
    await outcomes.untouched(env, proposal, live)


async def test_a_dry_run_changes_nothing(env: RunningEnvironment, live: CurrentConstitution) -> None:
    proposal = await env.author.propose()
    end = await env.end(await env.update(proposal, dry_run=True))
    assert end.type is None, end.message
    assert (end.result["version"], end.result["generation"]) == (proposal.version, None)
    await outcomes.untouched(env, proposal, live)
    assert env.reads.told_about(proposal.version) == []


@pytest.mark.slow
async def test_not_before_is_waited_for(env: RunningEnvironment, live: CurrentConstitution) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=12)
    handle, proposal = await env.approved(not_before=moment.isoformat())
    status = await env.until_step(handle, "lease", "waiting")
    assert moment.isoformat(timespec="seconds") in status.waiting_for
    assert await env.author.current() == live
    release = await outcomes.completed(env, handle, proposal)
    assert release.effective_at >= moment


@pytest.mark.slow
async def test_an_update_is_refused_while_another_holds_the_lease_and_told_which(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    first, second = await env.author.propose(), await env.author.propose()
    holder, late = await env.update(first), await env.update(second)
    with env.service_wire.holding("POST", "/v1/constitution/load") as load:
        await env.approve(holder, first)
        await load.reached()
        await env.approve(late, second)
        await outcomes.rejected(env, late, second, live, f"{first.change_request}")
        load.release()
        await outcomes.completed(env, holder, first)


@pytest.mark.slow  # test_by_hand.py: it is found before anybody signs
async def test_a_watch_that_cannot_see_is_refused_before_anything_is_live(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal, strategy="watched")  # nobody is asked to sign for it
    await outcomes.rejected(env, handle, proposal, live, "not published blind")


@pytest.mark.slow
@pytest.mark.usefixtures("live")
async def test_a_retry_heals_a_step_that_needed_a_person(env: RunningEnvironment) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    with env.service_wire.holding("POST", "/v1/constitution/load") as load:
        await env.approve(handle, proposal)
        await load.reached()
        env.service_wire.cut()
        load.release()
        status = await env.until(handle, needs_a_person, timedelta(seconds=150))
    assert (status.step, state_of(status, "publish")) == ("publish", "waiting")
    assert f"constitution retry {handle.id}" in status.next_command
    env.service_wire.repair()
    assert await env.steer(handle, "retry") == "trying again"
    await outcomes.completed(env, handle, proposal)


@pytest.mark.slow
async def test_a_step_that_fails_past_the_deadline_for_a_person_is_undone(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    async with env.configured(person=2):
        proposal = await env.author.propose()
        handle = await env.update(proposal)
        with env.service_wire.holding("POST", "/standing") as confirm:
            await env.approve(handle, proposal)
            await confirm.reached()
            env.service_wire.cut()
            confirm.release()
            await env.until(handle, lambda s: s.phase is Phase.ROLLING_BACK, timedelta(seconds=150))
        env.service_wire.repair()
        await outcomes.rolled_back(env, handle, proposal, live)


@pytest.mark.slow
async def test_a_confirmation_whose_answer_was_lost_is_no_reason_to_undo(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    async with env.configured(person=2):
        proposal = await env.author.propose()
        handle = await env.update(proposal)
        with env.service_wire.holding("POST", "/standing", answered=True) as confirm:
            await env.approve(handle, proposal)
            await confirm.reached()
            env.service_wire.cut()
            confirm.release()
            await env.until(handle, lambda s: s.phase is Phase.ROLLING_BACK, timedelta(seconds=150))
        env.service_wire.repair()
        release = await outcomes.completed(env, handle, proposal)
    assert [entry.standing for entry in release.standings] == [Standing.CONFIRMED]
    assert release.generation == live.generation + 1
