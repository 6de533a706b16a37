"""Only a person takes the lease from somebody else's update: an undo that starts by itself waits for its turn."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from constitution.api import Lease, LeaseRelease, LeaseRequest
from constitution.release import CurrentConstitution, Kind
from deploy.embedded.development import ENVIRONMENT
from tests.workflow import outcomes
from tests.world.environment import LEAF, RunningEnvironment

pytestmark = pytest.mark.timeout(240)

STRANGER = str(uuid4())


async def lose(env: RunningEnvironment) -> None:
    """Give back the lease of whoever holds it, unseen: as where Postgres came back from an older backup."""
    before = await env.service.lease()
    assert isinstance(before, Lease)
    await env.service.release_lease(
        LeaseRelease(update_id=before.update_id, fencing_token=before.fencing_token),
        f"{ENVIRONMENT}/{before.update_id}/taken-away",
    )


@asynccontextmanager
async def held_by_another(env: RunningEnvironment) -> AsyncIterator[Lease]:
    """Give back the lease of whoever holds it, and let another update hold it until the block ends."""
    await lose(env)
    token = uuid4().hex[:8]
    lease = await env.service.acquire_lease(
        LeaseRequest(update_id=STRANGER, kind=Kind.UPDATE, workflow_id="another-update"),
        f"{ENVIRONMENT}/{STRANGER}/lease-{token}",
    )
    try:
        yield lease
    finally:
        await env.service.release_lease(
            LeaseRelease(update_id=STRANGER, fencing_token=lease.fencing_token),
            f"{ENVIRONMENT}/{STRANGER}/release-{token}",
        )


@pytest.mark.slow
async def test_the_rollback_of_an_update_takes_the_lease_from_no_other_update(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    asks = "POST", "/v1/constitution/lease", b"constitution-rollback/"
    async with env.paused(LEAF):
        handle, proposal = await env.approved()
        await env.until_step(handle, "sync")
        with env.service_wire.holding(*asks) as asked:
            await env.steer(handle, "abort", "a mistake")
            await asked.reached()
            async with held_by_another(env) as theirs:
                asked.release()
                rollback = env.run((await env.status(handle)).rollback_workflow or "")
                status = await env.until_step(rollback, "lease", "waiting")
                assert "another-update" in status.waiting_for
                assert await env.service.lease() == theirs
        await env.steer(rollback, "retry")
        await env.go_on(LEAF)
    await outcomes.rolled_back(env, handle, proposal, live)


@pytest.mark.slow
async def test_an_update_that_gives_up_takes_the_lease_from_no_other_update(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    with env.service_wire.holding("POST", "/v1/constitution/load") as load:
        handle, proposal = await env.approved()
        await load.reached()
        async with held_by_another(env) as theirs:
            await handle.execute_update("abort", {"reason": "a mistake"})
            load.drop()
            end = await env.end(handle)
            assert end.type == "Rejected", end.message
            assert await env.service.lease() == theirs
    await outcomes.untouched(env, proposal, live)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/constitution/load", b'"kind":"rollback"'),
        pytest.param("/standing", b'"withdrawn"', marks=pytest.mark.slow),
        pytest.param("/standing", b'"confirmed"', marks=pytest.mark.slow),
    ],
    ids=["before its load", "before the bad one is withdrawn", "before its own is confirmed"],
)
async def test_a_rollback_that_loses_its_lease_takes_it_anew_and_ends(
    env: RunningEnvironment, live: CurrentConstitution, path: str, body: bytes
) -> None:
    proposal = await env.completed()
    bad = (await env.live()).generation
    where = path if path.startswith("/v1") else f"/v1/constitution/releases/{bad + (b'confirmed' in body)}{path}"
    with env.service_wire.holding("POST", where, body) as asked:
        handle = await env.start_rollback(bad)
        await asked.reached()
        await lose(env)
        asked.release()
        end = await env.end(handle)
    assert end.type is None, end.message
    undoing = await outcomes.undone(env, proposal, live)
    assert (await env.live()).generation == undoing.generation == bad + 1
    assert await env.service.lease() is None
