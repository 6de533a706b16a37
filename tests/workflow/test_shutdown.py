"""SIGTERM in mid-step: the worker drains and exits 0; the next one goes on; nothing is lost and nothing done twice."""

from datetime import timedelta

import pytest

from constitution.release import CurrentConstitution
from tests.workflow import outcomes
from tests.workflow.deploys import attempts, draining, ended, log_of, terminate
from tests.world.environment import LEAF, RunningEnvironment

pytestmark = pytest.mark.timeout(240)
LATE = timedelta(seconds=120)
EXITED = "ended with exit code 0"


async def test_a_publish_that_is_under_way_is_finished_first(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    before = log_of(env)
    with env.service_wire.holding("POST", "/v1/constitution/load", answered=True) as load:
        await env.approve(handle, proposal)
        await load.reached()
        await terminate(env)
        await draining(env, before)
        load.release()
    assert await ended(env) == EXITED
    assert attempts(await handle.fetch_history(), "load_release") == [1]  # its result is in the history already
    await env.restart("worker")
    release = await outcomes.completed(env, handle, proposal)
    assert release.generation == live.generation + 1
    assert attempts(await handle.fetch_history(), "load_release") == [1]


@pytest.mark.slow
async def test_a_publish_that_outlasts_the_drain_is_handed_to_the_next_worker(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    with env.service_wire.holding("POST", "/v1/constitution/load", answered=True) as load:
        await env.approve(handle, proposal)
        await load.reached()
        await terminate(env)
        assert await ended(env) == EXITED
    await env.restart("worker")
    release = await outcomes.completed(env, handle, proposal)
    assert release.generation == live.generation + 1  # the load of the first attempt is the one there is
    assert [n > 1 for n in attempts(await handle.fetch_history(), "load_release")] == [True]


@pytest.mark.slow
async def test_a_sync_that_waits_for_a_target_is_handed_to_the_next_worker(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    async with env.configured(sync=90), env.paused(LEAF):
        handle, proposal = await env.approved()
        await env.until_step(handle, "sync")
        await terminate(env, "assessor")
        assert await ended(env, "assessor") == EXITED
        await env.restart("assessor")
        await env.go_on(LEAF)
        release = await outcomes.completed(env, handle, proposal)
    assert release.generation == live.generation + 1
    assert attempts(await handle.fetch_history(), "load_release") == [1]


@pytest.mark.slow
async def test_a_gate_that_is_under_way_is_finished_first(env: RunningEnvironment, live: CurrentConstitution) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    await env.until_step(handle, "gate")
    await terminate(env, "assessor")
    assert await ended(env, "assessor") == EXITED
    await env.restart("assessor")
    await env.approve(handle, proposal, deadline=LATE)
    release = await outcomes.completed(env, handle, proposal)
    assert release.generation == live.generation + 1


@pytest.mark.slow
@pytest.mark.usefixtures("live")
async def test_a_run_that_waits_for_the_board_does_not_hold_up_the_worker(env: RunningEnvironment) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    waiting = await env.until_step(handle, "board", "waiting")
    await terminate(env)
    assert await ended(env, deadline=timedelta(seconds=10)) == EXITED
    await env.restart("worker")
    assert (await env.approve(handle, proposal)).evidence == waiting.evidence
    await outcomes.completed(env, handle, proposal)
