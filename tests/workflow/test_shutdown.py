"""SIGTERM in mid-step: the worker drains and exits 0; the next one goes on; nothing is lost and nothing done twice."""

from datetime import timedelta

import pytest

from constitution.release import CurrentConstitution
from tests.workflow import outcomes
from tests.workflow.deploys import attempts, draining, ended, log_of, terminate
from tests.workflow.town import LEAF, Town

pytestmark = pytest.mark.timeout(240)
LATE = timedelta(seconds=120)
EXITED = "ended with exit code 0"


async def test_a_publish_that_is_under_way_is_finished_first(town: Town, live: CurrentConstitution) -> None:
    proposal = await town.propose()
    handle = await town.update(proposal)
    before = log_of(town)
    with town.service_wire.holding("POST", "/v1/constitution/load", answered=True) as load:
        await town.approve(handle, proposal)
        await load.reached()
        await terminate(town)
        await draining(town, before)
        load.release()
    assert await ended(town) == EXITED
    assert attempts(await handle.fetch_history(), "load_release") == [1]  # its result is in the history already
    await town.restart("worker")
    release = await outcomes.completed(town, handle, proposal)
    assert release.generation == live.generation + 1
    assert attempts(await handle.fetch_history(), "load_release") == [1]


@pytest.mark.slow
async def test_a_publish_that_outlasts_the_drain_is_handed_to_the_next_worker(
    town: Town, live: CurrentConstitution
) -> None:
    proposal = await town.propose()
    handle = await town.update(proposal)
    with town.service_wire.holding("POST", "/v1/constitution/load", answered=True) as load:
        await town.approve(handle, proposal)
        await load.reached()
        await terminate(town)
        assert await ended(town) == EXITED
    await town.restart("worker")
    release = await outcomes.completed(town, handle, proposal)
    assert release.generation == live.generation + 1  # the load of the first attempt is the one there is
    assert [n > 1 for n in attempts(await handle.fetch_history(), "load_release")] == [True]


@pytest.mark.slow
async def test_a_sync_that_waits_for_a_target_is_handed_to_the_next_worker(
    town: Town, live: CurrentConstitution
) -> None:
    async with town.configured(sync=90), town.paused(LEAF):
        handle, proposal = await town.approved()
        await town.until_step(handle, "sync")
        await terminate(town, "assessor")
        assert await ended(town, "assessor") == EXITED
        await town.restart("assessor")
        await town.go_on(LEAF)
        release = await outcomes.completed(town, handle, proposal)
    assert release.generation == live.generation + 1
    assert attempts(await handle.fetch_history(), "load_release") == [1]


async def test_a_gate_that_is_under_way_is_finished_first(town: Town, live: CurrentConstitution) -> None:
    proposal = await town.propose()
    handle = await town.update(proposal)
    await town.until_step(handle, "gate")
    await terminate(town, "assessor")
    assert await ended(town, "assessor") == EXITED
    await town.restart("assessor")
    await town.approve(handle, proposal, deadline=LATE)
    release = await outcomes.completed(town, handle, proposal)
    assert release.generation == live.generation + 1


@pytest.mark.usefixtures("live")
async def test_a_run_that_waits_for_the_board_does_not_hold_up_the_worker(town: Town) -> None:
    proposal = await town.propose()
    handle = await town.update(proposal)
    waiting = await town.until_step(handle, "board", "waiting")
    await terminate(town)
    assert await ended(town, deadline=timedelta(seconds=10)) == EXITED
    await town.restart("worker")
    assert (await town.approve(handle, proposal)).evidence == waiting.evidence
    await outcomes.completed(town, handle, proposal)
