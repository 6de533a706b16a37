"""Whoever can reach Temporal can start runs and send messages; what they cannot do is stall a run or keep the lease."""

import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.common import RawValue, SearchAttributePair, TypedSearchAttributes

from constitution.messages import Outcome, Phase
from constitution.release import CurrentConstitution
from deploy.embedded.development import ENVIRONMENT
from tests.helpers import eventually
from tests.workflow import outcomes
from tests.workflow.town import LEAF, Town
from workflows.status import OUTCOME

pytestmark = pytest.mark.timeout(240)

MANY = ("{" + ",".join(f'"{i:x}":0' for i in range(6_300)) + "}").encode()
"""52 kB: under the limit of an input, and 6,300 unknown fields."""


def raw(data: bytes) -> RawValue:
    return RawValue(Payload(metadata={"encoding": b"json/plain"}, data=data))


async def free(town: Town) -> bool:
    return await town.service.lease() is None


async def approve(town: Town, handle: WorkflowHandle[Any, Any], *people: str) -> None:
    for person in people:
        key = str(town.home / "keys" / f"{person}.tsk")
        code, _, err = await town.constitution("approve", handle.id, "--key", key, "--reason", "yes", "--yes")
        assert code == 0, err


async def two_back(town: Town) -> WorkflowHandle[Any, Any]:
    """A rollback by two releases: the approvals of the bad one do not authorise that; the board is asked, and waits."""
    restore = (await town.live()).generation
    await town.completed()
    await town.completed()
    bad = (await town.live()).generation
    handle = await town.start_run("ConstitutionRollback", town.rollback_id(bad), {"reason": "two back", "to": restore})
    await town.until_step(handle, "board", "waiting")
    return handle


async def test_a_start_with_thousands_of_problems_is_refused_at_once(town: Town) -> None:
    handle = await town.start_run("ConstitutionUpdate", f"{town.names.namespace}/bad/{uuid4().hex[:8]}", raw(MANY))
    end = await town.end(handle, timedelta(seconds=20))
    assert end.type == "Rejected"
    assert "more than 200 values" in end.message
    assert len(end.message) < 10_000


async def test_messages_with_thousands_of_problems_stall_no_run(town: Town, live: CurrentConstitution) -> None:
    proposal = await town.propose()
    handle = await town.update(proposal)
    await town.until_step(handle, "board", "waiting")
    for _ in range(10):
        await handle.signal("promote", raw(MANY))
    await town.until(handle, lambda status: len(status.refusals) == 10)
    await handle.execute_update("abort", {"reason": "seen enough"})
    assert (await town.end(handle)).type == "Rejected"
    assert await town.current() == live


@pytest.mark.parametrize("known", [True, False], ids=["of an update that waits", "of nobody"])
async def test_a_rollback_started_by_a_stranger_in_the_name_of_an_update_is_refused(
    town: Town, live: CurrentConstitution, *, known: bool
) -> None:
    waiting = await town.update(await town.propose())
    status = await town.until_step(waiting, "board", "waiting")
    update_id = status.update_id if known else str(uuid4())
    handle = await town.start_run(
        "ConstitutionRollback",
        f"{town.names.namespace}/forged/{uuid4().hex[:8]}",
        {"reason": "x", "update_id": update_id},
    )
    end = await town.end(handle, timedelta(seconds=30))
    assert end.type == "Rejected"
    assert "nothing to undo" in end.message
    assert await free(town)
    await waiting.execute_update("abort", {"reason": "seen enough"})
    assert (await town.end(waiting)).type == "Rejected"
    assert await town.current() == live


async def test_a_rollback_undoes_what_was_live_when_it_was_asked_for_and_nothing_newer(town: Town) -> None:
    handle = await two_back(town)
    await town.completed()
    newer = await town.live()
    await approve(town, handle, "alva", "bruno")
    end = await town.end(handle)
    assert end.type == "Rejected", end.message
    assert "replaced" in end.message
    assert await town.live() == newer
    assert await free(town)


async def test_a_rollback_that_the_board_allows_too_late_does_not_stop_the_update_that_came_in_between(
    town: Town,
) -> None:
    handle = await two_back(town)
    async with town.paused(LEAF):
        update, proposal = await town.approved()
        await town.until_step(update, "sync")
        lease = await town.service.lease()
        await approve(town, handle, "alva", "bruno")
        end = await town.end(handle)
        assert end.type == "Rejected", end.message
        assert "replaced" in end.message
        assert await town.service.lease() == lease
        await town.go_on(LEAF)
        await outcomes.completed(town, update, proposal)


async def test_an_outcome_that_was_given_at_the_start_does_not_disarm_the_guard(
    town: Town, live: CurrentConstitution
) -> None:
    proposal = await town.propose()
    given = TypedSearchAttributes([SearchAttributePair(OUTCOME, Outcome.COMPLETED.value)])
    handle = await town.start_run(
        "ConstitutionUpdate", town.update_id(proposal.change_request), proposal.input, attributes=given
    )
    await town.approve(handle, proposal)
    async with town.paused(LEAF):
        await town.until_step(handle, "sync")
        guard = await town.guard_of(handle)
        await handle.terminate("an operator's mistake")
        await town.go_on(LEAF)
    assert "was rolled back" in (await town.end(guard)).result
    await outcomes.undone(town, proposal, live)


async def test_an_abort_while_the_lease_is_granted_leaves_no_lease_behind(
    town: Town, live: CurrentConstitution
) -> None:
    await town.completed()
    bad = (await town.live()).generation
    with town.service_wire.holding("POST", "/v1/constitution/lease", answered=True) as lease:
        handle = await town.start_run("ConstitutionRollback", town.rollback_id(bad), {"reason": "found bad"})
        await lease.reached()
        with contextlib.suppress(WorkflowUpdateFailedError):
            await handle.execute_update("abort", {"reason": "changed my mind"})
        lease.drop()
        await town.end(handle)
    await eventually(lambda: free(town), timedelta(seconds=20))
    assert (await town.live()).checksum == live.checksum


async def test_a_rollback_by_hand_that_waits_for_the_board_does_not_keep_a_bad_release_live(town: Town) -> None:
    restore = (await town.live()).generation
    await town.completed()
    before = await town.live()
    async with town.paused(LEAF):
        update, _ = await town.approved()
        status = await town.until_step(update, "sync")
        by_hand = await town.start_run(
            "ConstitutionRollback", town.rollback_id(status.generation or 0), {"reason": "two back", "to": restore}
        )
        await town.until_step(by_hand, "board", "waiting")
        await update.execute_update("abort", {"reason": "it is bad"})
        end = await town.end(update, timedelta(seconds=60))
    assert end.type == "RolledBack", end.message
    assert (await town.live()).checksum == before.checksum
    runs = await town.runs_of(by_hand.id)
    assert len(runs) == 2


@pytest.mark.slow
async def test_an_outage_at_the_very_end_does_not_change_the_outcome(town: Town, live: CurrentConstitution) -> None:
    with town.service_wire.holding("POST", "/v1/constitution/audit", b"update.completed") as audit:
        handle, proposal = await town.approved()
        await audit.reached()
        town.service_wire.cut()
        audit.drop()
        await town.until(handle, lambda status: status.phase is Phase.RECORDS_PENDING)
        town.service_wire.mend()
    end = await town.end(handle)
    assert (end.type, end.result["outcome"]) == (None, Outcome.COMPLETED)
    assert await eventually(lambda: "update.completed" in town.reads.audited(handle.id))
    assert (await town.live()).checksum == proposal.checksum != live.checksum


async def test_a_wait_that_is_over_is_not_shown_any_more(town: Town, live: CurrentConstitution) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=15)
    async with town.paused(LEAF):
        handle, _ = await town.approved(not_before=moment.isoformat())
        status = await town.until_step(handle, "sync")
        assert (status.waiting_for, status.next_command, status.phase) == ("", "", Phase.RUNNING)
        assert datetime.now(UTC) >= moment
    assert (await town.end(handle)).type is None
    assert (await town.live()).generation == live.generation + 1


async def test_a_hostile_workflow_id_is_quoted_in_the_command_to_type(town: Town) -> None:
    proposal = await town.propose()
    workflow_id = f"{town.names.namespace}/x; rm -rf ~ `id` {uuid4().hex[:8]}"
    handle = await town.start_run("ConstitutionUpdate", workflow_id, proposal.input)
    status = await town.until_step(handle, "board", "waiting")
    assert status.next_command == f"constitution approve '{workflow_id}'"
    await handle.execute_update("abort", {"reason": json.dumps("seen enough")})
    assert (await town.end(handle)).type == "Rejected"


@pytest.mark.parametrize("kind", ["ConstitutionGuard", "ConstitutionRollback"])
async def test_a_stranger_under_the_id_of_a_rollback_does_not_keep_a_bad_release_live(
    town: Town, live: CurrentConstitution, kind: str
) -> None:
    """Another type that waits for ever, or the right type on a queue where nobody works."""
    async with town.paused(LEAF):
        handle, proposal = await town.approved()
        generation = (await town.until_step(handle, "sync")).generation or 0
        queue = town.names.task_queue() if kind == "ConstitutionGuard" else f"{town.names.task_queue()}-of-nobody"
        taken = await town.client.start_workflow(
            kind,
            {
                "parent": {"workflow_id": handle.id},
                "update_id": str(uuid4()),
                "environment": ENVIRONMENT,
                "namespace": town.names.namespace,
                "seals": False,
            },
            id=town.rollback_id(generation),
            task_queue=queue,
        )
        await handle.execute_update("abort", {"reason": "a mistake"})
        await town.go_on(LEAF)
    await outcomes.rolled_back(town, handle, proposal, live)
    status = await town.status(handle)
    assert status.rollback_workflow == f"{taken.id}/2"
    assert any(f"{taken.id} is taken by a {kind} of queue {queue}" in said for said in status.refusals), status.refusals
    assert (await taken.describe()).status is WorkflowExecutionStatus.RUNNING
    await taken.terminate("the test is over")
