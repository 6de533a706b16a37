"""What people order is accepted once, by signature; a release that was confirmed is undone on nobody's mere word."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from constitution.api import LeaseRequest, OrderRequest, WorkflowRef
from constitution.checksum import checksum_of
from constitution.environment import Strategy
from constitution.errors import HeldError, NotApprovedError, NotFoundError, OrderUsedError
from constitution.release import Kind, Release, Standing
from constitution.trust.hold_rules import step_of_hold
from tests.helpers import eventually
from tests.world.author import Author, key
from tests.world.documents import following
from tests.world.environment import ServiceEnvironment, serving
from tests.world.files import EnvironmentFiles


def lease_of(update_id: str, generation: int | None, **more: Any) -> LeaseRequest:
    return LeaseRequest(update_id=update_id, kind=Kind.ROLLBACK, workflow_id="test", undoes=generation, **more)


def steering(author: Author, update_id: str, verb: str, person: str = "olga") -> OrderRequest:
    """A person's order to a run, as the run hands it on."""
    return author.order_request(update_id, verb, person, reason="to look")


@pytest.fixture
async def two(author: Author) -> Release:
    """Generation 2, confirmed after generation 1: its approvals authorise its undo."""
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    return await author.worker.release(2)


async def test_an_order_is_accepted_once_and_audited_with_the_name_in_its_signature(author: Author) -> None:
    update_id = str(uuid4())
    order = steering(author, update_id, "hold")
    accepted = await author.worker.accept_order(order)
    assert (accepted.person, accepted.order, accepted.reason) == ("olga", "hold", "to look")
    assert await author.worker.accept_order(order) == accepted  # its answer was lost
    with pytest.raises(OrderUsedError, match="each counts once"):
        await author.worker.accept_order(order.model_copy(update={"attempt": "another/1"}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"order": "resume"}, "'hold', not 'resume'"),
        ({"update_id": str(uuid4())}, "update_id"),
        ({"workflow": WorkflowRef(workflow_id="other", run_id="run")}, "workflow_id"),
        ({"step": "sync"}, "step"),
        ({"envelope": None, "reason": "please"}, "an unsigned hold is not obeyed"),
    ],
    ids=["another verb", "another update", "another run", "another step", "unsigned"],
)
async def test_an_order_about_something_else_is_refused(author: Author, changes: dict[str, Any], words: str) -> None:
    order = steering(author, str(uuid4()), "hold").model_copy(update=changes)
    with pytest.raises(NotApprovedError) as refused:
        await author.worker.accept_order(order)
    assert words in refused.value.diagnostics()


async def test_an_operators_order_is_an_operators_alone(author: Author) -> None:
    for person, verb in (("alva", "hold"), ("mara", "resume"), ("olga", "promote")):
        with pytest.raises(NotApprovedError) as refused:
            await author.worker.accept_order(steering(author, str(uuid4()), verb, person))
        assert person in refused.value.diagnostics()


async def test_what_an_operator_holds_is_not_confirmed_before_somebody_resumes(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    result, lease = await author.publish(author.draft("1.1.0", following(first)), expected_generation=1)
    held = await author.worker.accept_order(steering(author, lease.update_id, "hold"))
    with pytest.raises(HeldError, match="held by olga: to look"):
        await author.stand(result.generation, Standing.CONFIRMED, lease, "held")
    confirm = await author.orders(result.generation, "confirm")
    with pytest.raises(HeldError):  # what the board signs for want of an assessor ends no hold either
        await author.stand(result.generation, Standing.CONFIRMED, lease, "ordered", attested=False, orders=confirm)
    for number, step in enumerate((None, step_of_hold(checksum_of(b"another hold")), step_of_hold(held.digest))):
        with pytest.raises(HeldError):
            await author.stand(result.generation, Standing.CONFIRMED, lease, f"before-{number}", attested=False)
        await author.worker.accept_order(author.order_request(lease.update_id, "resume", step=step))
    assert (await author.stand(result.generation, Standing.CONFIRMED, lease)).standing is Standing.CONFIRMED
    orders = (await author.worker.update(lease.update_id)).orders
    assert [(order.order, order.person) for order in orders] == [("hold", "olga"), *[("resume", "olga")] * 3]


@pytest.mark.usefixtures("two")
async def test_the_lease_of_a_rollback_takes_an_order_for_this_rollback_and_generation(author: Author) -> None:
    mine = str(uuid4())
    with pytest.raises(NotFoundError, match="names in undoes"):
        await author.worker.acquire_lease(lease_of(mine, None), key(mine, "nothing"))
    with pytest.raises(NotApprovedError, match="nobody has ordered"):
        await author.worker.acquire_lease(lease_of(mine, 2), key(mine, "unordered"))
    await author.ordered(mine, 1)
    with pytest.raises(NotApprovedError):
        await author.worker.acquire_lease(lease_of(mine, 2), key(mine, "another-generation"))
    await author.ordered(str(uuid4()), 2)
    with pytest.raises(NotApprovedError):
        await author.worker.acquire_lease(lease_of(mine, 2), key(mine, "another-rollback"))
    assert await author.worker.lease() is None
    await author.ordered(mine, 2)
    assert (await author.worker.acquire_lease(lease_of(mine, 2), key(mine, "lease"))).kind is Kind.ROLLBACK


async def test_whoever_holds_the_workers_token_rolls_back_nothing_that_was_confirmed(
    author: Author, two: Release
) -> None:
    """The lease that takes from nobody is had without an order; the load is not, whatever update id it bears."""
    first = await author.worker.release(1)
    for update_id in (str(uuid4()), two.update_id):
        lease = await author.worker.acquire_lease(lease_of(update_id, None, own_only=True), key(update_id, "fence"))
        with pytest.raises(NotApprovedError, match="nobody has ordered"):
            await author.load(author.undoing(lease, 2, first.checksum), "undo")
        await author.release_lease(lease)
    assert [release.generation for release in await author.worker.releases()] == [2, 1]


async def test_an_order_that_expires_before_the_lease_is_taken_counts_no_more(author: Author, two: Release) -> None:
    mine = str(uuid4())
    soon = datetime.now(UTC) + timedelta(seconds=2)
    await author.ordered(mine, 2, expires_at=soon)

    async def is_past() -> bool:
        return datetime.now(UTC) > soon

    await eventually(is_past)
    with pytest.raises(NotApprovedError) as refused:
        await author.worker.acquire_lease(lease_of(mine, 2), key(mine, "late"))
    assert "expired" in refused.value.diagnostics()
    assert two.standing is Standing.CONFIRMED


@pytest.mark.usefixtures("two")
async def test_a_quorum_of_the_board_needs_no_operator(author: Author) -> None:
    first = await author.worker.release(1)
    mine = str(uuid4())
    decided: dict[str, Any] = {"kind": Kind.ROLLBACK, "checksum": first.checksum, "rollback_of": 2}
    one = author.approvals(None, members=("alva",), **decided)
    with pytest.raises(NotApprovedError):
        await author.worker.acquire_lease(lease_of(mine, 2, approvals=one), key(mine, "one"))
    both = author.approvals(None, members=("alva", "bruno"), **decided)
    assert (await author.worker.acquire_lease(lease_of(mine, 2, approvals=both), key(mine, "both"))).update_id == mine


async def test_the_undo_of_an_unconfirmed_release_needs_nobody(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    _, held = await author.publish(author.draft("1.1.0", following(first)), expected_generation=1)
    own = lease_of(held.update_id, None, own_only=True)
    lease = await author.worker.acquire_lease(own, key(held.update_id, "fence"))
    assert (await author.load(author.undoing(lease, 2, first.checksum), "undo")).generation == 3


@pytest.fixture
async def impatient(
    environment_files: EnvironmentFiles, service_environment: ServiceEnvironment, tmp_path: Path
) -> AsyncIterator[Author]:
    """A second process of the service, for which every wait of a run ends after a second."""
    text = environment_files.environment_file.read_text()
    file = tmp_path / "impatient" / "environment.toml"
    file.parent.mkdir()
    trust = json.dumps(str(environment_files.directory / "trust" / "trust.toml"))
    file.write_text(f"trust = {trust}\n{text}\n[deadlines]\nsync = 1\nhold = 1\nperson = 1\n")
    settings = {**service_environment.settings, "ENVIRONMENT_FILE": str(file)}
    async with serving(environment_files, settings, tmp_path / "impatient.log") as other:
        yield other.author


async def test_anybody_undoes_what_should_long_have_been_confirmed(author: Author, impatient: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    document = author.draft("1.1.0", following(first))
    request = await author.prepared(document, expected_generation=1)
    plan = author.plan(request.update_id, watch=Strategy(watch_seconds=0))
    approvals = author.approvals(
        document, change_request=request.change_request, evidence=request.test_evidence, plan=plan
    )
    held = await author.lease(request.update_id)
    await author.load(request.model_copy(update={"fencing_token": held.fencing_token, "approvals": approvals}))
    mine = str(uuid4())
    with pytest.raises(NotApprovedError):
        await author.worker.acquire_lease(lease_of(mine, 2), key(mine, "early"))  # by deadlines of hours

    async def taken() -> bool:
        try:
            await impatient.worker.acquire_lease(lease_of(mine, 2), key(mine, f"lease-{uuid4().hex}"))
        except NotApprovedError:
            return False
        return True

    await eventually(taken)
