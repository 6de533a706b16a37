"""One release at a time: pre-emption, fencing, and who wins when two want the same."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from constitution.api import LeaseRelease, LeaseRequest
from constitution.errors import (
    ConflictError,
    LeaseHeldError,
    LeaseLostError,
    NotCurrentError,
    StaleGenerationError,
    UpdateClosedError,
)
from constitution.release import Kind, Standing
from tests.helpers import eventually
from tests.resources import Database
from tests.world.author import Author, key
from tests.world.documents import following
from tests.world.environment import serving


async def test_the_holder_asks_again_and_gets_the_same_token(author: Author) -> None:
    mine = str(uuid4())
    first = await author.lease(mine)
    second = await author.lease(mine)
    repeated = await author.lease(mine, step="lease-x")

    assert first == second == repeated == await author.worker.lease()


async def test_another_update_is_refused_and_told_who_holds(author: Author) -> None:
    mine, other = str(uuid4()), str(uuid4())
    await author.lease(mine)

    with pytest.raises(LeaseHeldError, match=mine):
        await author.lease(other)
    answer = await author.http.post(
        "/v1/constitution/lease",
        json={"update_id": other, "kind": "update"},
        headers={
            "Authorization": f"Bearer {author.files.token('worker', 'lease:write')}",
            "Idempotency-Key": key(other, "lease"),
        },
    )
    assert (answer.status_code, answer.json()["current"]["update_id"]) == (409, mine)


async def test_a_rollback_preempts_an_update_even_its_own_but_no_other_rollback(author: Author) -> None:
    update = str(uuid4())
    before = await author.lease(update)
    rollback = await author.lease(update, Kind.ROLLBACK)

    assert rollback.fencing_token > before.fencing_token
    with pytest.raises(LeaseHeldError):
        await author.lease(str(uuid4()), Kind.ROLLBACK)
    with pytest.raises(LeaseHeldError):
        await author.lease(str(uuid4()), Kind.WITHDRAW)
    with pytest.raises(LeaseLostError):
        await author.lease(update, Kind.UPDATE)


async def test_a_rollback_closes_its_update_for_ever(author: Author) -> None:
    update = str(uuid4())
    await author.lease(update)
    undo = await author.lease(update, Kind.ROLLBACK)
    await author.release_lease(undo)

    with pytest.raises(UpdateClosedError):
        await author.lease(update)
    assert await author.worker.lease() is None


async def test_a_rollback_closes_no_update_that_nobody_knows(author: Author) -> None:
    stranger = str(uuid4())
    await author.release_lease(await author.lease(stranger, Kind.ROLLBACK))

    held = await author.lease(stranger)
    assert held.kind is Kind.UPDATE


async def test_a_rollback_that_only_fences_its_own_takes_from_nobody_else(author: Author) -> None:
    holder = await author.lease(str(uuid4()))
    mine = str(uuid4())
    request = LeaseRequest(update_id=mine, kind=Kind.ROLLBACK, own_only=True)

    with pytest.raises(LeaseHeldError):
        await author.worker.acquire_lease(request, key(mine, "fence"))
    assert await author.worker.lease() == holder

    own = LeaseRequest(update_id=holder.update_id, kind=Kind.ROLLBACK, own_only=True)
    fenced = await author.worker.acquire_lease(own, key(holder.update_id, "fence"))
    assert fenced.fencing_token > holder.fencing_token


async def test_a_rollback_takes_the_lease_from_another_update_only_while_what_it_undoes_is_live(
    author: Author,
) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    _, held = await author.publish(author.draft("1.1.0", following(first)), expected_generation=1)
    mine = str(uuid4())

    for generation in (1, 2):
        await author.ordered(mine, generation)
    late = LeaseRequest(update_id=mine, kind=Kind.ROLLBACK, undoes=1)
    with pytest.raises(NotCurrentError, match=held.update_id):
        await author.worker.acquire_lease(late, key(mine, "lease"))
    assert await author.worker.lease() == held
    await author.stand(2, Standing.CONFIRMED, held)  # whoever kept it can go on

    taken = await author.worker.acquire_lease(late.model_copy(update={"undoes": 2}), key(mine, "lease"))
    assert taken.fencing_token > held.fencing_token


async def test_what_is_recorded_already_needs_no_lease(author: Author) -> None:
    _, lease = await author.publish(author.draft("1.0.0"), expected_generation=0)
    await author.stand(1, Standing.CONFIRMED, lease)
    await author.release_lease(lease)

    again = await author.stand(1, Standing.CONFIRMED, lease, "again")
    assert len(again.standings) == 1
    with pytest.raises(LeaseLostError):
        await author.stand(1, Standing.WITHDRAWN, lease)


async def test_giving_back_with_an_old_token_does_nothing(author: Author) -> None:
    update = str(uuid4())
    before = await author.lease(update)
    rollback = await author.lease(update, Kind.ROLLBACK)

    await author.release_lease(before)
    assert await author.worker.lease() == rollback
    stranger = str(uuid4())
    await author.worker.release_lease(
        LeaseRelease(update_id=stranger, fencing_token=rollback.fencing_token), key(stranger, "release")
    )
    assert await author.worker.lease() == rollback
    await author.release_lease(rollback)
    assert await author.worker.lease() is None
    await author.release_lease(rollback)


async def test_a_lease_call_that_arrives_twice_does_not_take_the_lease_again(author: Author) -> None:
    update = str(uuid4())
    first = await author.lease(update, step="lease")
    await author.release_lease(first)

    late = await author.lease(update, step="lease")

    assert late == first
    assert await author.worker.lease() is None
    other = await author.http.post(
        "/v1/constitution/lease",
        json=LeaseRequest(update_id=update, kind=Kind.ROLLBACK).model_dump(mode="json"),
        headers={
            "Authorization": f"Bearer {author.files.token('worker', 'lease:write')}",
            "Idempotency-Key": key(update, "lease"),
        },
    )
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-mismatch")


async def test_a_late_load_is_fenced_by_the_rollback_that_looked(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    request = await author.prepared(author.draft("1.1.0", following(first)), expected_generation=1)
    lease = await author.lease(request.update_id)
    late = request.model_copy(update={"fencing_token": lease.fencing_token})
    undo = await author.lease(request.update_id, Kind.ROLLBACK)

    with pytest.raises(LeaseLostError):
        await author.load(late)
    with pytest.raises(ConflictError):
        await author.load(late.model_copy(update={"fencing_token": undo.fencing_token}), "with-the-new-token")
    assert [release.generation for release in await author.worker.releases()] == [1]


async def test_of_two_loads_with_the_same_expectation_exactly_one_wins(author: Author) -> None:
    request = await author.prepared(author.draft("1.0.0"), expected_generation=0)
    lease = await author.lease(request.update_id)
    request = request.model_copy(update={"fencing_token": lease.fencing_token})

    results = await asyncio.gather(
        author.load(request, "load-one"),
        author.load(request, "load-two"),
        return_exceptions=True,
    )

    failed = [result for result in results if isinstance(result, BaseException)]
    assert len(failed) == 1
    assert isinstance(failed[0], StaleGenerationError)
    assert [release.generation for release in await author.worker.releases()] == [1]
    answer = await author.post_load(request, "load-three")
    assert answer.status_code == 409
    assert answer.json()["current"]["generation"] == 1


async def test_the_same_call_ten_times_at_once_happens_once(author: Author) -> None:
    request = await author.prepared(author.draft("1.0.0"), expected_generation=0)
    lease = await author.lease(request.update_id)
    request = request.model_copy(update={"fencing_token": lease.fencing_token})

    results = await asyncio.gather(*(author.load(request) for _ in range(10)))

    assert len({result.event_id for result in results}) == 1
    assert len(await author.worker.releases()) == 1
    assert results[0].statement.signatures[0].keyid == "constitution-service"


@pytest.fixture
async def impatient(author: Author, service_settings: dict[str, str], tmp_path: Path) -> AsyncIterator[Author]:
    """A second process of the service, for which a lease ends after a second without a sign of life."""
    settings = {**service_settings, "LEASE_SECONDS": "1"}
    async with serving(author.files, settings, tmp_path / "impatient.log") as other:
        yield other.author


async def test_a_lease_without_a_sign_of_life_ends_and_its_holder_is_fenced_once_it_is_taken(impatient: Author) -> None:
    request = await impatient.prepared(impatient.draft("1.0.0"), expected_generation=0)
    mine = await impatient.lease(request.update_id)
    await eventually(lambda: is_free(impatient))

    taken = await impatient.lease(str(uuid4()))
    assert taken.fencing_token > mine.fencing_token
    with pytest.raises(LeaseLostError):
        await impatient.load(request.model_copy(update={"fencing_token": mine.fencing_token}))
    await impatient.release_lease(mine)
    assert await impatient.worker.lease() in (None, taken)  # it may have ended, too


async def test_a_lease_that_ended_and_that_nobody_took_is_still_its_holders(impatient: Author) -> None:
    request = await impatient.prepared(impatient.draft("1.0.0"), expected_generation=0)
    mine = await impatient.lease(request.update_id, step="lease")
    await eventually(lambda: is_free(impatient))

    assert await impatient.lease(request.update_id, step="lease") == mine
    assert await impatient.worker.lease() == mine
    assert (await impatient.load(request.model_copy(update={"fencing_token": mine.fencing_token}))).generation == 1


async def test_a_lease_does_not_end_while_its_release_is_live_and_unconfirmed(
    impatient: Author, database: Database
) -> None:
    _, held = await impatient.publish(impatient.draft("1.0.0"), expected_generation=0)
    connection = await asyncpg.connect(database.owner_url)
    try:
        await eventually(
            lambda: connection.fetchval("SELECT clock_timestamp() - renewed_at > interval '1.2 seconds' FROM leases")
        )
    finally:
        await connection.close()

    assert await impatient.worker.lease() == held
    with pytest.raises(LeaseHeldError) as refused:
        await impatient.lease(str(uuid4()))
    assert "generation 1 is live" in refused.value.hint
    await impatient.stand(1, Standing.CONFIRMED, held)
    await eventually(lambda: is_free(impatient))


async def test_who_may_not_take_the_lease_never_sees_its_token(author: Author) -> None:
    held = await author.lease(str(uuid4()))
    open_to_all = await author.http.get("/v1/constitution/lease")
    told = {"update_id": held.update_id, "kind": "update", "workflow_id": "test"}
    assert {name: open_to_all.json()[name] for name in told} == told
    assert "fencing_token" not in open_to_all.json()
    token = author.files.bearer("probe", "gate")
    assert "fencing_token" not in (await author.http.get("/v1/constitution/lease", headers=token)).json()

    with pytest.raises(LeaseHeldError) as refused:
        await author.lease(str(uuid4()))
    assert refused.value.current is not None
    assert refused.value.current["update_id"] == held.update_id
    assert "fencing_token" not in refused.value.current
    assert "without a sign of life it ends at" in refused.value.hint


async def is_free(author: Author) -> bool:
    return await author.worker.lease() is None
