"""Where an update is: who may end it, what ends it for ever, and that nothing goes on after its end."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from constitution.api import CloseRequest, DecidedRequest, LeaseRelease, LoadRequest, UpdateState
from constitution.errors import (
    ConflictError,
    NotApprovedError,
    NotFoundError,
    UpdateClosedError,
)
from constitution.release import Kind, Standing
from tests.helpers import eventually
from tests.resources import Database
from tests.world.author import Author, key
from tests.world.environment import serving

STOP = "stopped by hand"


async def ready_to_load(author: Author, version: str = "1.0.0", expected_generation: int = 0) -> LoadRequest:
    """A load that would succeed; its update holds the lease."""
    request = await author.prepared(author.draft(version), expected_generation=expected_generation)
    lease = await author.lease(request.update_id)
    return request.model_copy(update={"fencing_token": lease.fencing_token})


def stop(request: LoadRequest, **changes: str) -> CloseRequest:
    return CloseRequest.model_validate({"change_request": request.change_request, "reason": STOP, **changes})


async def decided(author: Author, request: LoadRequest) -> UpdateState:
    body = DecidedRequest(change_request=request.change_request or "", approvals=request.approvals)
    return (await author.worker.decided(request.update_id, body)).state


async def test_an_update_goes_through_every_state_and_each_is_written_once(author: Author) -> None:
    request = await author.prepared(author.draft("1.0.0"), expected_generation=0)
    assert (await author.worker.update(request.update_id)).state is UpdateState.OPEN
    assert await decided(author, request) is UpdateState.DECIDED
    assert await decided(author, request) is UpdateState.DECIDED
    lease = await author.lease(request.update_id)
    assert (await author.worker.update(request.update_id)).state is UpdateState.LEASE
    await author.load(request.model_copy(update={"fencing_token": lease.fencing_token}))
    await author.stand(1, Standing.CONFIRMED, lease)

    record = await author.worker.update(request.update_id)

    assert record.change_request == request.change_request
    assert [step.state.value for step in record.steps] == ["open", "decided", "lease", "loaded", "confirmed"]


async def test_an_aborted_update_is_not_loaded_with_its_approvals_under_any_update_id(author: Author) -> None:
    request = await ready_to_load(author)
    ended = await author.worker.abort_update(request.update_id, stop(request))
    assert (ended.state, ended.steps[-1].reason) == (UpdateState.ABORTED, STOP)

    with pytest.raises(UpdateClosedError, match=STOP):
        await author.load(request)
    with pytest.raises(UpdateClosedError):
        await author.lease(request.update_id)
    given_back = LeaseRelease(update_id=request.update_id, fencing_token=request.fencing_token)
    await author.worker.release_lease(given_back, key(request.update_id, "release"))
    copied = request.model_copy(update={"update_id": str(uuid4())})
    lease = await author.lease(copied.update_id)
    with pytest.raises(NotApprovedError, match=request.update_id):
        await author.load(copied.model_copy(update={"fencing_token": lease.fencing_token}))
    assert await author.worker.releases() == []


async def test_a_denial_closes_the_request_for_every_update_of_it(author: Author) -> None:
    request = await ready_to_load(author)
    said = await author.deny(request.change_request or "", request.checksum)
    assert (said.denied_by, said.reason) == ("alva", "too lenient")
    assert await author.deny(request.change_request or "", request.checksum, "bruno") == said

    with pytest.raises(UpdateClosedError, match="denied"):
        await author.load(request)
    with pytest.raises(UpdateClosedError, match="denied by alva"):
        await author.evidence(author.draft("1.0.0"), request.change_request or "", update_id=str(uuid4()))
    record = await author.worker.update(request.update_id)
    assert (record.state, record.steps[-1].actor) == (UpdateState.DENIED, "alva")
    assert await author.worker.releases() == []


async def test_a_denial_counts_only_with_a_board_members_signature_about_this_request(author: Author) -> None:
    request = await author.prepared(author.draft("1.0.0"), expected_generation=0)
    mine = request.change_request or ""
    other = await author.ask(request.checksum or "")
    refused = (
        author.denial(mine, request.checksum, person="mara"),
        author.denial(other, request.checksum),
        author.denial(mine, request.checksum, environment="production"),
        author.denial(mine, request.checksum, issued_at=datetime.now(UTC) + timedelta(hours=1)),
        request.approvals[0],
    )
    for envelope in refused:
        with pytest.raises(NotApprovedError):
            await author.worker.deny(mine, envelope)
    with pytest.raises(NotFoundError):
        await author.worker.deny("CR-unknown", author.denial("CR-unknown", request.checksum))
    assert (await author.worker.update(request.update_id)).state is UpdateState.OPEN


async def test_what_is_live_is_not_aborted_and_what_was_denied_while_live_is_not_confirmed(author: Author) -> None:
    request = await ready_to_load(author)
    held = await author.lease(request.update_id)
    await author.load(request)
    with pytest.raises(ConflictError):
        await author.worker.abort_update(request.update_id, stop(request))

    await author.deny(request.change_request or "", request.checksum)
    with pytest.raises(UpdateClosedError, match="too lenient"):
        await author.stand(1, Standing.CONFIRMED, held)
    undo = await author.lease(request.update_id, Kind.ROLLBACK)
    await author.load(author.undoing(undo, 1, None), "undo")

    states = [step.state for step in (await author.worker.update(request.update_id)).steps]
    assert states[-3:] == [UpdateState.LOADED, UpdateState.DENIED, UpdateState.UNDONE]


async def test_a_confirmed_release_is_not_denied_but_undone_and_its_request_is_used_up(author: Author) -> None:
    document = author.draft("1.0.0")
    request = await author.prepared(document, expected_generation=0)
    held = await author.lease(request.update_id)
    await author.load(request.model_copy(update={"fencing_token": held.fencing_token}))
    await author.stand(1, Standing.CONFIRMED, held)
    await author.release_lease(held)

    with pytest.raises(ConflictError, match="too late"):
        await author.deny(request.change_request or "", request.checksum)
    with pytest.raises(ConflictError):
        await author.worker.abort_update(request.update_id, stop(request))
    with pytest.raises(UpdateClosedError, match="published already"):
        await author.evidence(document, request.change_request or "", update_id=str(uuid4()))


async def test_only_the_clock_expires_an_update_and_only_an_undecided_one(author: Author) -> None:
    request = await author.prepared(author.draft("1.0.0"), expected_generation=0)
    with pytest.raises(ConflictError, match="has until"):
        await author.worker.expire_update(request.update_id, stop(request))
    await decided(author, request)
    with pytest.raises(ConflictError, match="decided"):
        await author.worker.expire_update(request.update_id, stop(request))


async def test_past_the_boards_deadline_an_undecided_update_is_expired_whatever_it_is_called(
    author: Author, service_settings: dict[str, str], tmp_path: Path
) -> None:
    hasty_file = author.files.directory / "hasty.toml"
    hasty_file.write_text(author.files.environment_file.read_text() + "[deadlines]\ndecisions = 1\n")
    settings = {**service_settings, "ENVIRONMENT_FILE": str(hasty_file)}
    async with serving(author.files, settings, tmp_path / "hasty.log") as served:
        hasty = served.author
        for end in (hasty.worker.expire_update, hasty.worker.abort_update):
            request = await author.prepared(author.draft("1.0.0"), expected_generation=0)
            later = await author.prepared(author.draft("1.0.1"), expected_generation=0)
            await eventually(lambda later=later: is_over(hasty, later))  # type: ignore[misc]
            assert (await end(request.update_id, stop(request))).state is UpdateState.EXPIRED
            with pytest.raises(UpdateClosedError, match="deadline"):
                await author.lease(request.update_id)


async def is_over(author: Author, request: LoadRequest) -> bool:
    try:
        return (await author.worker.expire_update(request.update_id, stop(request))).state is UpdateState.EXPIRED
    except ConflictError:
        return False


async def test_an_end_names_an_update_and_the_request_that_it_belongs_to(author: Author) -> None:
    request = await author.prepared(author.draft("1.0.0"), expected_generation=0)
    other = await author.ask(request.checksum or "")
    with pytest.raises(NotFoundError):
        await author.worker.abort_update(str(uuid4()), stop(request))
    with pytest.raises(ConflictError):
        await author.worker.abort_update(request.update_id, stop(request, change_request=other))
    with pytest.raises(UpdateClosedError, match="belongs to"):
        await author.evidence(author.draft("1.0.0"), other, update_id=request.update_id)
    assert (await author.worker.update(request.update_id)).state is UpdateState.OPEN


async def test_too_few_approvals_decide_nothing(author: Author) -> None:
    request = await author.prepared(author.draft("1.0.0"), expected_generation=0)
    body = DecidedRequest(change_request=request.change_request or "", approvals=request.approvals[:1] * 2)
    with pytest.raises(NotApprovedError):
        await author.worker.decided(request.update_id, body)
    assert (await author.worker.update(request.update_id)).state is UpdateState.OPEN


async def test_a_load_and_an_abort_at_once_never_both_succeed(author: Author) -> None:
    request = await ready_to_load(author)
    loaded, aborted = await asyncio.gather(
        author.load(request),
        author.worker.abort_update(request.update_id, stop(request)),
        return_exceptions=True,
    )

    assert isinstance(loaded, UpdateClosedError) is not isinstance(aborted, ConflictError)


async def test_the_database_itself_refuses_a_step_that_does_not_follow(author: Author, database: Database) -> None:
    request = await author.prepared(author.draft("1.0.0"), expected_generation=0)
    await author.worker.abort_update(request.update_id, stop(request))
    denied = await author.ask(request.checksum or "")
    await author.deny(denied, request.checksum)
    connection = await asyncpg.connect(database.owner_url)
    insert = """
        INSERT INTO update_states (environment, update_id, position, change_request, state, actor)
        VALUES ('development', $1, $2, $3, $4, 'vandal')
    """
    try:
        for update, request_id, state in (
            (request.update_id, request.change_request, "decided"),
            (request.update_id, request.change_request, "loaded"),
            (str(uuid4()), request.change_request, "loaded"),
            (str(uuid4()), denied, "open"),
        ):
            for position in (0, 1, 7):
                with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                    await connection.execute(insert, update, position, request_id, state)
    finally:
        await connection.close()
