"""Only a person takes the lease from somebody else's update: an undo that starts by itself waits for its turn."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from constitution.api import Lease, LeaseRelease, LeaseRequest
from constitution.release import CurrentConstitution, Kind
from deploy.embedded.development import ENVIRONMENT
from tests.workflow import outcomes
from tests.workflow.town import LEAF, Town

pytestmark = pytest.mark.timeout(240)

STRANGER = str(uuid4())


async def lose(town: Town) -> None:
    """Give back the lease of whoever holds it, unseen: as where Postgres came back from an older backup."""
    before = await town.service.lease()
    assert isinstance(before, Lease)
    await town.service.release_lease(
        LeaseRelease(update_id=before.update_id, fencing_token=before.fencing_token),
        f"{ENVIRONMENT}/{before.update_id}/taken-away",
    )


@asynccontextmanager
async def held_by_another(town: Town) -> AsyncIterator[Lease]:
    """Give back the lease of whoever holds it, and let another update hold it until the block ends."""
    await lose(town)
    token = uuid4().hex[:8]
    lease = await town.service.acquire_lease(
        LeaseRequest(update_id=STRANGER, kind=Kind.UPDATE, workflow_id="another-update"),
        f"{ENVIRONMENT}/{STRANGER}/lease-{token}",
    )
    try:
        yield lease
    finally:
        await town.service.release_lease(
            LeaseRelease(update_id=STRANGER, fencing_token=lease.fencing_token),
            f"{ENVIRONMENT}/{STRANGER}/release-{token}",
        )


async def test_the_rollback_of_an_update_takes_the_lease_from_no_other_update(
    town: Town, live: CurrentConstitution
) -> None:
    asks = "POST", "/v1/constitution/lease", b"constitution-rollback/"
    async with town.paused(LEAF):
        handle, proposal = await town.approved()
        await town.until_step(handle, "sync")
        with town.service_wire.holding(*asks) as asked:
            await handle.execute_update("abort", {"reason": "a mistake"})
            await asked.reached()
            async with held_by_another(town) as theirs:
                asked.release()
                rollback = town.run((await town.status(handle)).rollback_workflow or "")
                status = await town.until_step(rollback, "lease", "waiting")
                assert "another-update" in status.waiting_for
                assert await town.service.lease() == theirs
        await rollback.execute_update("retry", {})
        await town.go_on(LEAF)
    await outcomes.rolled_back(town, handle, proposal, live)


async def test_an_update_that_gives_up_takes_the_lease_from_no_other_update(
    town: Town, live: CurrentConstitution
) -> None:
    with town.service_wire.holding("POST", "/v1/constitution/load") as load:
        handle, proposal = await town.approved()
        await load.reached()
        async with held_by_another(town) as theirs:
            await handle.execute_update("abort", {"reason": "a mistake"})
            load.drop()
            end = await town.end(handle)
            assert end.type == "Rejected", end.message
            assert await town.service.lease() == theirs
    await outcomes.untouched(town, proposal, live)


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
    town: Town, live: CurrentConstitution, path: str, body: bytes
) -> None:
    proposal = await town.completed()
    bad = (await town.live()).generation
    where = path if path.startswith("/v1") else f"/v1/constitution/releases/{bad + (b'confirmed' in body)}{path}"
    with town.service_wire.holding("POST", where, body) as asked:
        handle = await town.start_run("ConstitutionRollback", town.rollback_id(bad), {"reason": "found bad"})
        await asked.reached()
        await lose(town)
        asked.release()
        end = await town.end(handle)
    assert end.type is None, end.message
    undoing = await outcomes.undone(town, proposal, live)
    assert (await town.live()).generation == undoing.generation == bad + 1
    assert await town.service.lease() is None
