"""A document that was undone as harmful is refused wherever it comes again; each refusal is in the audit stream."""

from typing import Any

import pytest

from constitution.api import LoadResult
from constitution.errors import InvalidDocumentError
from constitution.release import Kind, Standing
from tests.helpers import eventually
from tests.world.author import Author
from tests.world.documents import following
from tests.world.readings import Topics


async def poisoned(author: Author, **changes: Any) -> tuple[LoadResult, bytes]:
    """Generation 1 is confirmed, 2 was poisoned, 3 restores the first; what is live, and what was undone."""
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    document = author.draft("1.1.0", following(first), **changes)
    _, held = await author.publish(document, expected_generation=1)
    undo = await author.lease(held.update_id, Kind.ROLLBACK)
    await author.load(author.undoing(undo, 2, first.checksum), "undo")
    await author.stand(2, Standing.POISONED, undo)
    await author.stand(3, Standing.CONFIRMED, undo)
    await author.release_lease(undo)
    return first, document


async def audited(topics: Topics, operation: str) -> dict[str, Any]:
    """The one refusal of this name."""

    async def there() -> dict[str, Any]:
        found = [record.value for record in await topics.audit() if record.value["api"]["operation"] == operation]
        assert len(found) == 1
        return found[0]

    return await eventually(there)


async def test_a_poisoned_document_is_refused_at_push_at_validate_and_at_load_each_audited(
    author: Author, topics: Topics
) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    document = author.draft("1.1.0", following(first))
    published, held = await author.publish(document, expected_generation=1)
    undo = await author.lease(held.update_id, Kind.ROLLBACK)
    await author.load(author.undoing(undo, 2, first.checksum), "undo")
    request = await author.prepared(document, expected_generation=3)
    await author.stand(2, Standing.POISONED, undo)
    await author.stand(3, Standing.CONFIRMED, undo)
    await author.release_lease(undo)
    why = "generation 2 of this document was undone as harmful: the test says poisoned"

    with pytest.raises(InvalidDocumentError, match=r"^1\.1\.0 is not stored: this document is poisoned$") as push:
        await author.push(document)
    answer = await author.worker.validate(published.checksum or "")
    lease = await author.lease(request.update_id)
    with pytest.raises(InvalidDocumentError, match=r"^1\.1\.0 may not go live as update$") as load:
        await author.load(request.model_copy(update={"fencing_token": lease.fencing_token}))

    assert not answer.valid
    for issues in (push.value.issues, answer.issues, load.value.issues):
        found = [issue for issue in issues if issue.code == "poisoned"]
        assert [(issue.path, issue.message, issue.hint) for issue in found] == [
            ("/checksum", why, "constitution show 2")
        ]
    assert push.value.hint.startswith("constitution releases  # ")
    assert load.value.hint.startswith(f"constitution reissue {request.change_request} --reason ")
    for operation in ("artifacts.refused", "validate.refused", "load.refused"):
        event = await audited(topics, operation)
        assert (event["status"], event["actor"]["user"]["name"]) == ("Failure", "worker"), operation
        assert "poisoned" in {issue["code"] for issue in event["unmapped"]["issues"]}, operation
    assert [release.generation for release in await author.worker.releases()] == [3, 2, 1]


async def test_whoever_asks_without_a_token_is_told_and_audited_too(author: Author, topics: Topics) -> None:
    _, document = await poisoned(author)
    answer = await author.http.post("/v1/constitution/validate", files={"document": document})

    assert answer.status_code == 200
    assert "poisoned" in {issue["code"] for issue in answer.json()["issues"]}
    event = await audited(topics, "validate.refused")
    assert event["unmapped"]["request"]["checksum"] == answer.json()["checksum"]


async def test_a_poisoned_document_that_was_confirmed_before_is_not_restored(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    second = await author.confirmed(author.draft("1.1.0", following(first)))
    third = await author.confirmed(author.draft("1.2.0", following(second)))
    undo = await author.lease("11111111-1111-4111-8111-111111111111", Kind.ROLLBACK)
    await author.stand(1, Standing.POISONED, undo, attested=False, orders=await author.orders(1, "poison"))

    signed = author.approvals(None, kind=Kind.ROLLBACK, checksum=first.checksum, rollback_of=3)
    answer = await author.post_load(author.undoing(undo, third.generation, first.checksum, signed), "restore")

    assert (answer.status_code, answer.json()["code"]) == (422, "not-possible")
    assert answer.json()["detail"] == "1.0.0 is not restored: this document is poisoned"
    assert answer.json()["hint"] == "constitution releases  # choose another one that was confirmed"
