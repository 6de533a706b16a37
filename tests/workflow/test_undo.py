"""Before confirmation everything is undone: cancel, abort, a step that fails past its deadline; and what only waits."""

from datetime import UTC, datetime, timedelta

import pytest

from constitution.messages import Phase
from constitution.release import CurrentConstitution, Standing
from tests.helpers import eventually
from tests.workflow import outcomes
from tests.workflow.town import LEAF, Town, needs_a_person, state_of

pytestmark = pytest.mark.timeout(240)


async def test_cancel_in_mid_sync_rolls_back(town: Town, live: CurrentConstitution) -> None:
    async with town.paused(LEAF):
        handle, proposal = await town.approved()
        await town.until_step(handle, "sync")
        code, _, err = await town.temporal("workflow", "cancel", "--workflow-id", handle.id)
        assert code == 0, err
        await town.until(handle, lambda s: s.rollback_workflow is not None)
        await town.go_on(LEAF)
        end, _ = await outcomes.rolled_back(town, handle, proposal, live)
    assert "cancelled" in end.message


async def test_abort_in_mid_sync_rolls_back(town: Town, live: CurrentConstitution) -> None:
    async with town.paused(LEAF):
        handle, proposal = await town.approved()
        await town.until_step(handle, "sync")
        assert await handle.execute_update("abort", {"reason": "a mistake"}) == "stopping"
        await town.until(handle, lambda s: s.rollback_workflow is not None)
        await town.go_on(LEAF)
        end, _ = await outcomes.rolled_back(town, handle, proposal, live)
    assert "aborted: a mistake" in end.message


async def test_a_target_that_dies_in_mid_sync_is_named_and_joins_when_it_comes_back(
    town: Town, live: CurrentConstitution
) -> None:
    await town.kill(LEAF)
    handle, proposal = await town.approved()
    end, undoing = await outcomes.rolled_back(town, handle, proposal, live)
    assert f"did not answer: {LEAF}" in end.message
    await town.restart(LEAF)
    said = await eventually(lambda: town.reads.live(town.environment), timedelta(seconds=30))
    assert said[LEAF] == (undoing.generation, live.checksum)


async def test_a_load_that_arrives_after_its_undo_is_fenced(town: Town, live: CurrentConstitution) -> None:
    proposal = await town.propose()
    handle = await town.update(proposal)
    with town.service_wire.holding("POST", "/v1/constitution/load") as load:
        await town.approve(handle, proposal)
        await load.reached()
        await handle.execute_update("abort", {"reason": "too slow"})
        await outcomes.rejected(town, handle, proposal, live, "aborted: too slow")
        load.release()
        await load.over()
    await outcomes.untouched(town, proposal, live)


async def test_a_dry_run_changes_nothing(town: Town, live: CurrentConstitution) -> None:
    proposal = await town.propose()
    end = await town.end(await town.update(proposal, dry_run=True))
    assert end.type is None, end.message
    assert (end.result["version"], end.result["generation"]) == (proposal.version, None)
    await outcomes.untouched(town, proposal, live)
    assert town.reads.told_about(proposal.version) == []


async def test_not_before_is_waited_for(town: Town, live: CurrentConstitution) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=12)
    handle, proposal = await town.approved(not_before=moment.isoformat())
    status = await town.until_step(handle, "lease", "waiting")
    assert moment.isoformat(timespec="seconds") in status.waiting_for
    assert await town.current() == live
    release = await outcomes.completed(town, handle, proposal)
    assert release.effective_at >= moment


async def test_an_update_is_refused_while_another_holds_the_lease_and_told_which(
    town: Town, live: CurrentConstitution
) -> None:
    first, second = await town.propose(), await town.propose()
    holder, late = await town.update(first), await town.update(second)
    with town.service_wire.holding("POST", "/v1/constitution/load") as load:
        await town.approve(holder, first)
        await load.reached()
        await town.approve(late, second)
        await outcomes.rejected(town, late, second, live, f"{first.change_request}")
        load.release()
        await outcomes.completed(town, holder, first)


async def test_a_watch_that_cannot_see_is_refused_before_anything_is_live(
    town: Town, live: CurrentConstitution
) -> None:
    proposal = await town.propose()
    handle = await town.update(proposal, strategy="watched")  # nobody is asked to sign for it
    await outcomes.rejected(town, handle, proposal, live, "not published blind")


@pytest.mark.slow
@pytest.mark.usefixtures("live")
async def test_a_retry_heals_a_step_that_needed_a_person(town: Town) -> None:
    proposal = await town.propose()
    handle = await town.update(proposal)
    with town.service_wire.holding("POST", "/v1/constitution/load") as load:
        await town.approve(handle, proposal)
        await load.reached()
        town.service_wire.cut()
        load.release()
        status = await town.until(handle, needs_a_person, timedelta(seconds=150))
    assert (status.step, state_of(status, "publish")) == ("publish", "waiting")
    assert f"constitution retry {handle.id}" in status.next_command
    town.service_wire.mend()
    assert await handle.execute_update("retry", {}) == "trying again"
    await outcomes.completed(town, handle, proposal)


@pytest.mark.slow
async def test_a_step_that_fails_past_the_deadline_for_a_person_is_undone(
    town: Town, live: CurrentConstitution
) -> None:
    async with town.configured(person=2):
        proposal = await town.propose()
        handle = await town.update(proposal)
        with town.service_wire.holding("POST", "/standing") as confirm:
            await town.approve(handle, proposal)
            await confirm.reached()
            town.service_wire.cut()
            confirm.release()
            await town.until(handle, lambda s: s.phase is Phase.ROLLING_BACK, timedelta(seconds=150))
        town.service_wire.mend()
        await outcomes.rolled_back(town, handle, proposal, live)


@pytest.mark.slow
async def test_a_confirmation_whose_answer_was_lost_is_no_reason_to_undo(town: Town, live: CurrentConstitution) -> None:
    async with town.configured(person=2):
        proposal = await town.propose()
        handle = await town.update(proposal)
        with town.service_wire.holding("POST", "/standing", answered=True) as confirm:
            await town.approve(handle, proposal)
            await confirm.reached()
            town.service_wire.cut()
            confirm.release()
            await town.until(handle, lambda s: s.phase is Phase.ROLLING_BACK, timedelta(seconds=150))
        town.service_wire.mend()
        release = await outcomes.completed(town, handle, proposal)
    assert [entry.standing for entry in release.standings] == [Standing.CONFIRMED]
    assert release.generation == live.generation + 1
