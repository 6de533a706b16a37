"""The board's signed override lets a poisoned document come again: by one change request, once, in its time."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from constitution.api import LoadRequest
from constitution.checksum import checksum_of
from constitution.errors import InvalidDocumentError, NotApprovedError, UpdateClosedError
from constitution.release import Envelope, Kind, Standing
from constitution.trust.approval import BoardDecision
from tests.helpers import eventually
from tests.integration.test_constitution_service_poisoned import poisoned
from tests.world.author import Author
from tests.world.environment import ServiceEnvironment
from tests.world.files import EnvironmentFiles
from tests.world.processes import Service, run_constitution
from tests.world.readings import Topics


def overrides(
    author: Author,
    document: bytes,
    change_request: str | None,
    members: Sequence[str] = ("alva", "bruno"),
    **changes: Any,
) -> tuple[Envelope, ...]:
    said = {"kind": Kind.REISSUE, "change_request": change_request, **changes}
    return author.approvals(document, members=members, **said)


async def prepared(author: Author, document: bytes, change_request: str) -> LoadRequest:
    """An update of a stored document, approved and tested; what is missing is an override."""
    identity, checksum = str(uuid4()), checksum_of(document)
    evidence = await author.evidence(document, change_request, update_id=identity)
    highest = max(release.generation for release in await author.worker.releases())
    bound: dict[str, Any] = {"change_request": change_request, "evidence": evidence, "plan": author.plan(identity)}
    base = author.undoing(await author.lease(identity), highest, checksum)
    return base.model_copy(
        update={
            "kind": Kind.UPDATE,
            "rollback_of": None,
            "change_request": change_request,
            "test_evidence": evidence,
            "approvals": author.approvals(document, **bound),
        }
    )


async def test_a_poisoned_document_comes_again_by_a_quorums_override_once(author: Author, topics: Topics) -> None:
    first, document = await poisoned(author)
    checksum = checksum_of(document)
    change_request = await author.ask(checksum)
    with pytest.raises(InvalidDocumentError, match="is not stored"):
        await author.push(document)
    request = await prepared(author, document, change_request)
    one, two = overrides(author, document, change_request)

    record = await author.operator.reissue(change_request, one)
    assert (record.signed_by, record.needed) == (("alva",), 2)
    with pytest.raises(InvalidDocumentError) as refused:
        await author.load(request, "load-1")
    assert {issue.code for issue in refused.value.issues} >= {"poisoned", "reissue", "version-order"}
    assert any("1 more of" in issue.message for issue in refused.value.issues)
    assert refused.value.hint.startswith(f"constitution reissue {change_request} --reason ")
    again = await author.operator.reissue(change_request, one)
    assert again.signed_by == ("alva",), "one person counts once"

    assert (await author.operator.reissue(change_request, two)).signed_by == ("alva", "bruno")
    assert (await author.worker.validate(checksum)).valid
    await author.push(document)  # a run pushes what it publishes
    other = await author.ask(checksum)
    lease_of_other = request.model_copy(update={"change_request": other, "update_id": request.update_id})
    with pytest.raises((InvalidDocumentError, UpdateClosedError)):
        await author.load(lease_of_other, "load-other")
    loaded = await author.load(request, "load-2")
    assert (loaded.generation, loaded.checksum, loaded.version) == (4, checksum, "1.1.0")
    assert (await decisions(topics, "release.loaded", 4))[-1]["unmapped"]["reissued_by"] == ["alva", "bruno"]
    signed = await decisions(topics, "reissue.signed", 2)
    assert [event["actor"]["user"]["name"] for event in signed] == ["alva", "bruno"]

    undo = await author.lease(request.update_id, Kind.ROLLBACK)
    await author.load(author.undoing(undo, 4, first.checksum), "undo")
    await author.stand(4, Standing.POISONED, undo)
    await author.stand(5, Standing.CONFIRMED, undo)
    await author.release_lease(undo)
    assert not (await author.worker.validate(checksum)).valid, "the override was good for one release"
    with pytest.raises(UpdateClosedError, match="good for one release"):
        await author.operator.reissue(change_request, two)
    third = await author.ask(checksum)
    early = overrides(author, document, third, issued_at=datetime.now(UTC) - timedelta(hours=1))
    with pytest.raises(NotApprovedError, match="before generation 4 was called poisoned"):
        await author.operator.reissue(third, early[0])


async def decisions(topics: Topics, operation: str, least: int) -> list[dict[str, Any]]:
    """The audit events of this name, once the outbox has been delivered."""

    async def there() -> list[dict[str, Any]]:
        found = [record.value for record in await topics.audit() if record.value["api"]["operation"] == operation]
        assert len(found) >= least
        return found

    return await eventually(there)


@pytest.fixture(scope="module")
async def case(shared_environment: ServiceEnvironment) -> tuple[Author, bytes, str]:
    """A poisoned document, and a change request that asks for it."""
    author = shared_environment.author
    _, document = await poisoned(author)
    return author, document, await author.ask(checksum_of(document))


WRONG: dict[str, dict[str, Any]] = {
    "an operator": {"members": ("olga",)},
    "the author": {"members": ("mara",)},
    "another environment": {"environment": "production"},
    "other bytes": {"checksum": checksum_of(b"other")},
    "another change request": {"change_request": "CR-other"},
    "no change request": {"change_request": None},
    "another kind": {"kind": Kind.UPDATE},
    "a denial": {"decision": BoardDecision.DENY},
    "expired": {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)},
    "from the future": {"issued_at": datetime(2100, 1, 1, tzinfo=UTC), "expires_at": datetime(2101, 1, 1, tzinfo=UTC)},
    "an end without a time zone": {"expires_at": datetime(2100, 1, 1, tzinfo=UTC).replace(tzinfo=None)},
    "a beginning without a time zone": {"issued_at": datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)},
    "with evidence": {"evidence": checksum_of(b"evidence")},
    "of an undo": {"rollback_of": 2},
}


@pytest.mark.parametrize("wrong", WRONG, ids=list(WRONG))
async def test_an_override_counts_for_exactly_what_it_names(case: tuple[Author, bytes, str], wrong: str) -> None:
    author, document, change_request = case
    said = {"members": ("alva",), "change_request": change_request, **WRONG[wrong]}
    envelope = overrides(author, document, said.pop("change_request"), **said)[0]
    with pytest.raises(NotApprovedError):
        await author.operator.reissue(change_request, envelope)


async def test_nobody_overrides_what_was_never_poisoned(case: tuple[Author, bytes, str]) -> None:
    author, _, _ = case
    document = author.draft("1.9.0")
    change_request = await author.ask(await author.push(document))
    headers = author.files.bearer("change-requests:write", "operator")
    body = overrides(author, document, change_request)[0].model_dump_json()
    path = f"/v1/constitution/change-requests/{change_request}/reissue"
    answer = await author.http.post(path, content=body, headers={**headers, "Content-Type": "application/json"})

    assert (answer.status_code, answer.json()["code"]) == (422, "not-possible")
    assert answer.json()["hint"].startswith("constitution update --checksum sha256:")
    assert (await author.http.post(path, content=body)).status_code in {403, 415}


async def test_the_board_signs_a_reissue_at_its_command_line(
    author: Author, constitution_service: Service, environment_files: EnvironmentFiles
) -> None:
    _, document = await poisoned(author)
    checksum = checksum_of(document)
    change_request = await author.ask(checksum)
    settings = {
        "CONSTITUTION_SERVICE_URL": constitution_service.url,
        "CLIENT_KEY_FILE": str(environment_files.key_file("operator")),
        "ENVIRONMENT_FILE": str(environment_files.environment_file),
    }

    def reissue(person: str, *more: str) -> tuple[int, str, str]:
        key = environment_files.directory / "keys" / f"{person}.tsk"
        said = ("--key", str(key), "--reason", "its cause was elsewhere", "--yes", *more)
        return run_constitution(settings, "reissue", change_request, *said)

    code, out, err = reissue("alva", "--text")
    assert code == 0, err
    assert "UNDONE BEFORE: generation 2 of this document was undone as harmful: the test says poisoned" in err
    assert f"next: constitution reissue {change_request} --reason 'why'  # 1 more of the board" in out
    code, out, err = reissue("bruno", "--text")
    assert code == 0, err
    assert f"next: constitution update --checksum {checksum} --change-request {change_request}" in out
    for person, why in (("mara", "board"), ("olga", "board")):
        code, out, err = reissue(person)
        assert (code, out) == (1, ""), person
        assert why in err
    assert (await author.worker.validate(checksum)).valid
