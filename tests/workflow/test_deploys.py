"""Two builds of the worker at once: a run ends on the build that began it, and new runs begin on the current one."""

import json
import secrets
from collections.abc import AsyncIterator

import pytest

from tests.workflow import outcomes
from tests.workflow.conftest import Towns
from tests.workflow.deploys import build_of, builds, make_current, one_more
from tests.workflow.town import LEAF, Town

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

OLD, NEW = "build-1", "build-2"


@pytest.fixture
async def own(towns: Towns) -> AsyncIterator[Towns]:
    """A town of its own, whose worker is unversioned: what routes its task queue is nothing for other tests."""
    made = towns.with_settings()
    yield made
    await made.leave()


@pytest.fixture
def deployment() -> str:
    return f"runbook-{secrets.token_hex(4)}"


@pytest.fixture
async def versioned(towns: Towns, deployment: str) -> AsyncIterator[Town]:
    """A town whose worker is of the first build, which is current."""
    made = towns.with_settings(TEMPORAL_DEPLOYMENT_NAME=deployment, TEMPORAL_WORKER_BUILD_ID=OLD)
    town = await made.town()
    try:
        await make_current(town, deployment, OLD)
        yield town
        await town.rest()
    finally:
        await made.leave()


async def pinned_to(town: Town, deployment: str, build: str) -> list[str]:
    """The open runs of a build, by the command that docs/operations.md gives."""
    query = f'TemporalWorkerDeploymentVersion = "{deployment}:{build}" AND ExecutionStatus = "Running"'
    code, out, err = await town.temporal("workflow", "list", "--query", query, "--output", "json")
    assert code == 0, err
    return sorted(run["execution"]["workflowId"] for run in json.loads(out))


async def test_a_run_stays_on_its_build_and_new_ones_begin_on_the_current_one(versioned: Town, deployment: str) -> None:
    town = versioned
    live = await town.live()
    proposal, later = await town.propose(), await town.propose()
    old = await town.update(proposal)
    await town.until_step(old, "board", "waiting")
    async with one_more(town, TEMPORAL_WORKER_BUILD_ID=NEW) as second:
        await make_current(town, deployment, NEW)
        new = await town.update(later)
        await town.until_step(new, "board", "waiting")
        assert [await build_of(run) for run in (old, new)] == [OLD, NEW]
        assert [await build_of(await town.guard_of(run)) for run in (old, new)] == [OLD, NEW]

        second.kill()
        async with town.paused(LEAF):
            await town.approve(old, proposal)
            await town.until_step(old, "sync")
            await old.execute_update("abort", {"reason": "a mistake"})
            status = await town.until(old, lambda s: s.rollback_workflow is not None)
            await town.go_on(LEAF)
        await outcomes.rolled_back(town, old, proposal, live)
        rollback, guard = town.run(status.rollback_workflow or ""), await town.guard_of(old)
        await town.end(guard)
        for run in (old, rollback, guard):
            assert builds(await run.fetch_history()) == {OLD}, run.id
        assert await pinned_to(town, deployment, OLD) == []

    # The new build's run found nobody meanwhile; its next worker goes on with it.
    assert await pinned_to(town, deployment, NEW) == sorted([new.id, (await town.guard_of(new)).id])
    async with one_more(town, TEMPORAL_WORKER_BUILD_ID=NEW):
        await new.execute_update("abort", {"reason": "no longer wanted"})
        assert (await town.end(new)).type == "Rejected"
        await town.end(await town.guard_of(new))
        assert builds(await new.fetch_history()) == {NEW}
        await make_current(town, deployment, OLD)  # a deploy is taken back by the same command


async def test_a_run_of_a_build_that_is_gone_for_good_is_moved_by_hand(versioned: Town, deployment: str) -> None:
    town = versioned
    await town.live()
    proposal = await town.propose()
    async with one_more(town, TEMPORAL_WORKER_BUILD_ID=NEW):
        await make_current(town, deployment, NEW)
        run = await town.update(proposal)
        await town.until_step(run, "board", "waiting")
    guard = await town.guard_of(run)
    for moved in (run, guard):
        code, _, err = await town.temporal(
            *("workflow", "update-options", "--workflow-id", moved.id, "--versioning-override-behavior", "pinned"),
            *("--versioning-override-deployment-name", deployment, "--versioning-override-build-id", OLD),
        )
        assert code == 0, err
    await town.approve(run, proposal)
    await outcomes.completed(town, run, proposal)
    await town.end(guard)
    assert builds(await run.fetch_history()) == {OLD, NEW}
    await make_current(town, deployment, OLD)


async def test_the_first_versioned_build_takes_over_what_unversioned_workers_began(own: Towns, deployment: str) -> None:
    town = await own.town()
    await town.live()
    proposal = await town.propose()
    run = await town.update(proposal)
    await town.until_step(run, "board", "waiting")
    settings = {"TEMPORAL_DEPLOYMENT_NAME": deployment, "TEMPORAL_WORKER_BUILD_ID": NEW}
    async with one_more(town, **settings):
        await make_current(town, deployment, NEW)
        await town.kill("worker")
        await town.approve(run, proposal)
        await outcomes.completed(town, run, proposal)
        await town.end(await town.guard_of(run))
        assert NEW in builds(await run.fetch_history())
        assert await build_of(run) == NEW
        again, proposal = await town.approved()
        await outcomes.completed(town, again, proposal)
        await town.end(await town.guard_of(again))
        assert builds(await again.fetch_history()) == {NEW}
        await town.rest()
