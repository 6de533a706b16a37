"""What goes live, what everyone then reads of it, and how it is undone."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from activities.past_releases import past_releases
from adapters.redis_cache import ConstitutionCache
from constitution.checksum import checksum_of
from constitution.errors import (
    ConflictError,
    InvalidDocumentError,
    LeaseLostError,
    NotApprovedError,
    NotFoundError,
    UpdateClosedError,
)
from constitution.release import CurrentConstitution, Kind, Standing
from signatures.current import verify_current
from tests.helpers import eventually
from tests.world.author import Author
from tests.world.documents import following
from tests.world.files import ENVIRONMENT
from tests.world.processes import Service
from tests.world.readings import Topics


async def test_before_the_first_release_there_is_no_constitution(author: Author) -> None:
    assert await author.worker.current() is None
    answer = await author.http.get("/v1/constitution")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "no-constitution"


async def test_releases_reach_postgres_redis_and_kafka_in_order(
    author: Author, cache: ConstitutionCache, topics: Topics, constitution_service: Service
) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    document = author.draft("1.1.0", following(first))
    second = await author.confirmed(document, expected_generation=1)

    release = await author.delivered(2)
    records = await topics.updated()
    current = await author.worker.current(min_generation=2)
    raw = await cache.read("default")

    assert current is not None
    assert raw is not None
    assert current == CurrentConstitution.model_validate_json(raw)
    statement = verify_current(current, trust=author.files.trust, environment=ENVIRONMENT, ring="default")
    assert current.document == document.decode()
    assert (statement.generation, statement.checksum, statement.previous) == (2, checksum_of(document), first.checksum)
    assert [(r.value["generation"], r.key, r.headers["ce_id"]) for r in records] == [
        (result.generation, tenant, f"{result.event_id}:{tenant}")
        for result in (first, second)
        for tenant in ("global", "acme")
    ]
    assert [(e.tenant, e.event_id, e.offset) for e in release.delivery.events] == [
        (r.key, r.headers["ce_id"], r.offset) for r in records[2:]
    ]
    assert release.delivery.redis_checksum == second.checksum
    assert release.approvers == ("alva", "bruno")
    logged = [(e["generation"], e["checksum"]) for e in constitution_service.events("cache_refreshed")]
    assert (2, second.checksum) in logged
    assert [r.generation for r in await author.worker.releases()] == [2, 1]
    await eventually(lambda: serves(author, 2))


async def test_a_history_is_read_page_by_page(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    second = await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    await author.confirmed(author.draft("1.2.0", following(second)), expected_generation=2)
    whole = [await author.delivered(generation) for generation in (1, 2, 3)]

    for at_once in (1, 2, 3, 4):
        found = [release async for release in author.worker.iter_releases(at_once)]
        assert [(r.generation, r.statement) for r in found] == [(r.generation, r.statement) for r in reversed(whole)]
    kept = await past_releases(author.worker)
    assert [[asdict(stood) for stood in entry.standings] for entry in kept] == [
        [stood.model_dump() for stood in release.standings] for release in whole
    ]
    assert [(entry.generation, entry.is_approved, entry.delivered_at) for entry in kept] == [
        (release.generation, True, release.delivery.delivered_at) for release in whole
    ]


async def serves(author: Author, generation: int) -> bool:
    return bool((await author.worker.release(generation)).delivery.served_by)


async def test_etag_names_what_is_current(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    fresh = await author.http.get("/v1/constitution")
    same = await author.http.get("/v1/constitution", headers={"If-None-Match": fresh.headers["etag"]})
    await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    changed = await author.http.get("/v1/constitution", headers={"If-None-Match": fresh.headers["etag"]})

    assert (fresh.status_code, fresh.headers["constitution-version"]) == (200, "1.0.0")
    assert fresh.headers["constitution-generation"] == "1"
    assert (same.status_code, same.content) == (304, b"")
    assert (changed.status_code, changed.headers["constitution-generation"]) == (200, "2")


async def test_artifacts_are_stored_once_and_served_exactly(author: Author) -> None:
    document = author.draft("1.0.0")
    signature = author.sign(document)
    files = [("document", ("d", document)), ("signature", ("s", signature))]
    headers = author.files.bearer("artifacts:write", "worker")

    once = await author.http.post("/v1/constitution/artifacts", files=files, headers=headers)
    again = await author.http.post("/v1/constitution/artifacts", files=files, headers=headers)

    assert (once.status_code, again.status_code) == (201, 200)
    assert once.json() == again.json()
    assert once.json()["signers"] == ["mara"]
    assert await author.worker.artifact(checksum_of(document)) == document
    assert await author.worker.artifact_signatures(checksum_of(document)) == [signature]


async def test_a_vandalised_artifact_store_is_healed(author: Author, service_settings: dict[str, str]) -> None:
    document = author.draft("1.0.0")
    checksum = await author.push(document)
    store = Path(service_settings["ARTIFACT_STORE_URL"].removeprefix("file://"))
    path = store / "artifacts" / "sha256" / checksum.removeprefix("sha256:") / "document.json"
    assert path.read_bytes() == document
    path.write_bytes(b"something else")

    assert await author.worker.artifact(checksum) == document
    assert path.read_bytes() == document


async def test_validate_says_everything_that_is_wrong_and_changes_nothing(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    good = author.draft("1.1.0", following(first))
    bad = author.draft("0.9.0", environment="elsewhere", expires_at="2020-01-01T00:00:00Z")

    fine = await author.worker.validate_files(good, [author.sign(good)])
    wrong = await author.worker.validate_files(bad, [author.sign(good)])

    assert (fine.valid, fine.signers, fine.issues) == (True, ("mara",), ())
    assert not wrong.valid
    assert wrong.checksum == checksum_of(bad)
    assert len(wrong.issues) >= 2
    with pytest.raises(NotFoundError):
        await author.worker.artifact(checksum_of(good))


async def test_a_first_release_that_fails_is_withdrawn_by_its_own_approvals(author: Author, topics: Topics) -> None:
    result, lease = await author.publish(author.draft("1.0.0"), expected_generation=0)
    undo = await author.lease(lease.update_id, Kind.ROLLBACK)
    withdrawn = await author.load(author.undoing(undo, 1, None), "undo")

    current = await author.worker.current()
    assert current is not None
    assert (current.kind, current.document, current.generation) == (Kind.WITHDRAW, None, 2)
    assert withdrawn.checksum is None
    await author.delivered(2)
    assert [r.value["kind"] for r in await topics.updated()] == ["update", "update", "withdraw", "withdraw"]
    await author.release_lease(undo)
    again = await author.confirmed(author.draft("1.0.1"), expected_generation=2)
    assert again.generation == 3
    assert result.generation == 1


async def test_an_unconfirmed_update_is_rolled_back_by_its_own_approvals(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    second, lease = await author.publish(author.draft("1.1.0", following(first)), expected_generation=1)
    undo = await author.lease(lease.update_id, Kind.ROLLBACK)
    third = await author.load(author.undoing(undo, second.generation, first.checksum), "undo")
    poisoned = await author.stand(second.generation, Standing.POISONED, undo)
    # A run that finishes this rollback may not know of the anomaly; the stronger word stays.
    still = await author.stand(second.generation, Standing.WITHDRAWN, undo)
    confirmed = await author.stand(third.generation, Standing.CONFIRMED, undo)

    assert (third.generation, third.checksum) == (3, first.checksum)
    assert [poisoned.standing, still.standing] == [Standing.POISONED, Standing.POISONED]
    assert len(still.standings) == 1
    assert confirmed.standing is Standing.CONFIRMED
    release = await author.worker.release(3)
    assert (release.kind, release.rollback_of, release.approvers) == (Kind.ROLLBACK, 2, ("alva", "bruno"))


async def test_a_rollback_restores_nothing_that_was_not_confirmed(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    other = author.draft("1.0.5", following(first))
    await author.push(other)
    _, lease = await author.publish(author.draft("1.1.0", following(first)), expected_generation=1)
    undo = await author.lease(lease.update_id, Kind.ROLLBACK)

    answer = await author.post_load(author.undoing(undo, 2, checksum_of(other)), "undo")

    assert answer.status_code == 422
    assert "never confirmed" in answer.json()["detail"]


async def test_after_a_later_confirmation_a_rollback_needs_its_own_quorum(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    second = await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    third = await author.confirmed(author.draft("1.2.0", following(second)), expected_generation=2)
    lease = await author.lease(str(uuid4()), Kind.ROLLBACK)
    # The approvals of generation 3 authorise the way back to 1.1.0 for 72 h, and to nothing else.
    with pytest.raises(NotApprovedError):
        await author.load(author.undoing(lease, third.generation, first.checksum), "alone")
    one = author.approvals(
        None, kind=Kind.ROLLBACK, checksum=first.checksum, rollback_of=third.generation, members=("alva",)
    )
    with pytest.raises(NotApprovedError):
        await author.load(author.undoing(lease, third.generation, first.checksum, one), "one")
    two = author.approvals(
        None, kind=Kind.ROLLBACK, checksum=first.checksum, rollback_of=third.generation, members=("alva", "chen")
    )

    fourth = await author.load(author.undoing(lease, third.generation, first.checksum, two), "two")

    assert (fourth.generation, fourth.version) == (4, "1.0.0")
    assert (await author.worker.release(4)).approvers == ("alva", "chen")


async def test_within_72_hours_an_update_may_go_back_to_what_its_approvals_name(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    second = await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    lease = await author.lease(str(uuid4()), Kind.ROLLBACK)

    third = await author.load(author.undoing(lease, second.generation, first.checksum))

    assert third.checksum == first.checksum


async def test_only_what_is_live_is_confirmed_and_only_by_the_holder(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    second, lease = await author.publish(author.draft("1.1.0", following(first)), expected_generation=1)
    undo = await author.lease(lease.update_id, Kind.ROLLBACK)
    await author.load(author.undoing(undo, second.generation, first.checksum), "undo")

    with pytest.raises(LeaseLostError):
        await author.stand(second.generation, Standing.CONFIRMED, lease)
    with pytest.raises(ConflictError):
        await author.stand(second.generation, Standing.CONFIRMED, undo)
    with pytest.raises(NotFoundError):
        await author.stand(99, Standing.CONFIRMED, undo)
    assert (await author.worker.release(2)).standing is None


async def test_an_update_waits_for_its_own_effective_time(author: Author) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    request = await author.prepared(author.draft("1.0.0", effective_at=later), expected_generation=0)
    lease = await author.lease(request.update_id)

    answer = await author.post_load(request.model_copy(update={"fencing_token": lease.fencing_token}))

    assert answer.status_code == 422
    assert answer.json()["issues"][0]["code"] == "not-effective-yet"


async def test_idempotent_load_answers_the_same_and_happens_once(author: Author) -> None:
    request = await author.prepared(author.draft("1.0.0"), expected_generation=0)
    lease = await author.lease(request.update_id)
    request = request.model_copy(update={"fencing_token": lease.fencing_token})

    once = await author.load(request)
    # A retry by another run with another token is the same call; another reason is not.
    workflow = request.workflow.model_copy(update={"run_id": "another"})
    again = await author.load(request.model_copy(update={"fencing_token": 7, "workflow": workflow}))
    other = await author.post_load(request.model_copy(update={"reason": "another"}))

    assert once == again
    assert len(await author.worker.releases()) == 1
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-mismatch")


async def test_a_refused_answer_is_not_remembered(author: Author) -> None:
    request = await author.prepared(author.draft("1.0.0"), expected_generation=0)
    refused = await author.post_load(request)
    lease = await author.lease(request.update_id)

    loaded = await author.load(request.model_copy(update={"fencing_token": lease.fencing_token}))

    assert (refused.status_code, refused.json()["code"]) == (409, "lease-lost")
    assert loaded.generation == 1


async def test_a_reissue_needs_a_signed_override_and_repeats_what_is_live(author: Author) -> None:
    document = author.draft("1.0.0")
    first = await author.confirmed(document, expected_generation=0)
    lease = await author.lease(str(uuid4()), Kind.REISSUE)
    request = author.undoing(lease, 1, first.checksum).model_copy(update={"kind": Kind.REISSUE, "rollback_of": None})

    with pytest.raises(NotApprovedError):
        await author.load(request, "alone")
    other = author.approvals(document, kind=Kind.REISSUE, checksum=checksum_of(b"other"), members=("alva",))
    with pytest.raises(NotApprovedError):
        await author.load(request.model_copy(update={"approvals": other}), "other")
    alone = author.approvals(document, kind=Kind.REISSUE, members=("alva",))
    with pytest.raises(NotApprovedError, match="1 more of"):
        await author.load(request.model_copy(update={"approvals": alone}), "few")
    signed = author.approvals(document, kind=Kind.REISSUE)
    again = await author.load(request.model_copy(update={"approvals": signed}), "signed")

    assert (again.generation, again.checksum) == (2, first.checksum)


@pytest.mark.parametrize("standing", [Standing.WITHDRAWN, Standing.POISONED])
async def test_what_was_withdrawn_may_come_again_by_a_new_request_and_what_was_poisoned_may_not(
    author: Author, standing: Standing
) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    document = author.draft("1.1.0", following(first))
    _, held = await author.publish(document, expected_generation=1)
    undo = await author.lease(held.update_id, Kind.ROLLBACK)
    await author.load(author.undoing(undo, 2, first.checksum), "undo")
    request = await author.prepared(document, expected_generation=3)
    rolled_back = request.checksum or ""
    assert not (await author.worker.validate(rolled_back)).valid, "nobody has said yet why it was undone"
    await author.stand(2, standing, undo)
    await author.stand(3, Standing.CONFIRMED, undo)
    await author.release_lease(undo)

    lease = await author.lease(request.update_id)
    request = request.model_copy(update={"fencing_token": lease.fencing_token})
    if standing is Standing.POISONED:
        with pytest.raises(InvalidDocumentError) as refused:
            await author.load(request)
        assert "poisoned" in {issue.code for issue in refused.value.issues}
        return
    assert (await author.worker.validate(rolled_back)).valid
    again = await author.load(request)
    assert (again.generation, again.version, again.checksum) == (4, "1.1.0", rolled_back)
    await author.stand(4, Standing.CONFIRMED, lease)
    await author.release_lease(lease)
    other = await author.lease(str(uuid4()))
    used = request.model_copy(update={"update_id": other.update_id, "fencing_token": other.fencing_token})
    with pytest.raises(UpdateClosedError, match="generation 4"):
        await author.load(used)
