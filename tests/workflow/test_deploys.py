"""Two builds of the worker at once: a run ends on the build that began it, and new runs begin on the current one."""

import json
import secrets
from collections.abc import AsyncIterator

import pytest

from tests.workflow import outcomes
from tests.workflow.deploys import build_of, builds, make_current, one_more
from tests.world.environment import LEAF, Environments, RunningEnvironment

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

OLD, NEW = "build-1", "build-2"


@pytest.fixture
async def own(environments: Environments) -> AsyncIterator[Environments]:
    """An environment of its own, whose worker is unversioned: what routes its task queue is nothing for other tests."""
    made = environments.with_settings()
    yield made
    await made.leave()


@pytest.fixture
def deployment() -> str:
    return f"runbook-{secrets.token_hex(4)}"


@pytest.fixture
async def versioned(environments: Environments, deployment: str) -> AsyncIterator[RunningEnvironment]:
    """An environment whose worker is of the first build, which is current."""
    made = environments.with_settings(TEMPORAL_DEPLOYMENT_NAME=deployment, TEMPORAL_WORKER_BUILD_ID=OLD)
    env = await made.running()
    try:
        await make_current(env, deployment, OLD)
        yield env
        await env.rest()
    finally:
        await made.leave()


async def pinned_to(env: RunningEnvironment, deployment: str, build: str) -> list[str]:
    """The open runs of a build, by the command that docs/operations.md gives."""
    query = f'TemporalWorkerDeploymentVersion = "{deployment}:{build}" AND ExecutionStatus = "Running"'
    code, out, err = await env.temporal("workflow", "list", "--query", query, "--output", "json")
    assert code == 0, err
    return sorted(run["execution"]["workflowId"] for run in json.loads(out))


async def test_a_run_stays_on_its_build_and_new_ones_begin_on_the_current_one(
    versioned: RunningEnvironment, deployment: str
) -> None:
    env = versioned
    live = await env.live()
    proposal, later = await env.author.propose(), await env.author.propose()
    old = await env.update(proposal)
    await env.until_step(old, "board", "waiting")
    async with one_more(env, TEMPORAL_WORKER_BUILD_ID=NEW) as second:
        await make_current(env, deployment, NEW)
        new = await env.update(later)
        await env.until_step(new, "board", "waiting")
        assert [await build_of(run) for run in (old, new)] == [OLD, NEW]
        assert [await build_of(await env.guard_of(run)) for run in (old, new)] == [OLD, NEW]

        second.kill()
        async with env.paused(LEAF):
            await env.approve(old, proposal)
            await env.until_step(old, "sync")
            await env.steer(old, "abort", "a mistake")
            status = await env.until(old, lambda s: s.rollback_workflow is not None)
            await env.go_on(LEAF)
        await outcomes.rolled_back(env, old, proposal, live)
        rollback, guard = env.run(status.rollback_workflow or ""), await env.guard_of(old)
        await env.end(guard)
        for run in (old, rollback, guard):
            assert builds(await run.fetch_history()) == {OLD}, run.id
        assert await pinned_to(env, deployment, OLD) == []

    # The new build's run found nobody meanwhile; its next worker goes on with it.
    assert await pinned_to(env, deployment, NEW) == sorted([new.id, (await env.guard_of(new)).id])
    async with one_more(env, TEMPORAL_WORKER_BUILD_ID=NEW):
        await new.execute_update("abort", {"reason": "no longer wanted"})
        assert (await env.end(new)).type == "Rejected"
        await env.end(await env.guard_of(new))
        assert builds(await new.fetch_history()) == {NEW}
        await make_current(env, deployment, OLD)  # a deploy is taken back by the same command


async def test_a_run_of_a_build_that_is_gone_for_good_is_moved_by_hand(
    versioned: RunningEnvironment, deployment: str
) -> None:
    env = versioned
    await env.live()
    proposal = await env.author.propose()
    async with one_more(env, TEMPORAL_WORKER_BUILD_ID=NEW):
        await make_current(env, deployment, NEW)
        run = await env.update(proposal)
        await env.until_step(run, "board", "waiting")
    guard = await env.guard_of(run)
    for moved in (run, guard):
        code, _, err = await env.temporal(
            *("workflow", "update-options", "--workflow-id", moved.id, "--versioning-override-behavior", "pinned"),
            *("--versioning-override-deployment-name", deployment, "--versioning-override-build-id", OLD),
        )
        assert code == 0, err
    await env.approve(run, proposal)
    await outcomes.completed(env, run, proposal)
    await env.end(guard)
    assert builds(await run.fetch_history()) == {OLD, NEW}
    await make_current(env, deployment, OLD)


async def test_the_first_versioned_build_takes_over_what_unversioned_workers_began(
    own: Environments, deployment: str
) -> None:
    env = await own.running()
    await env.live()
    proposal = await env.author.propose()
    run = await env.update(proposal)
    await env.until_step(run, "board", "waiting")
    settings = {"TEMPORAL_DEPLOYMENT_NAME": deployment, "TEMPORAL_WORKER_BUILD_ID": NEW}
    async with one_more(env, **settings):
        await make_current(env, deployment, NEW)
        await env.kill("worker")
        await env.approve(run, proposal)
        await outcomes.completed(env, run, proposal)
        await env.end(await env.guard_of(run))
        assert NEW in builds(await run.fetch_history())
        assert await build_of(run) == NEW
        again, proposal = await env.approved()
        await outcomes.completed(env, again, proposal)
        await env.end(await env.guard_of(again))
        assert builds(await again.fetch_history()) == {NEW}
        await env.rest()
