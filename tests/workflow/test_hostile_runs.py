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
from tests.world.environment import LEAF, RunningEnvironment
from workflows.status import OUTCOME

pytestmark = pytest.mark.timeout(240)

MANY = ("{" + ",".join(f'"{i:x}":0' for i in range(6_300)) + "}").encode()
"""52 kB: under the limit of an input, and 6,300 unknown fields."""


def raw(data: bytes) -> RawValue:
    return RawValue(Payload(metadata={"encoding": b"json/plain"}, data=data))


async def free(env: RunningEnvironment) -> bool:
    return await env.service.lease() is None


async def approve(env: RunningEnvironment, handle: WorkflowHandle[Any, Any], *members: str) -> None:
    for person in members:
        key = str(env.files.directory / "keys" / f"{person}.tsk")
        code, _, err = await env.constitution("approve", handle.id, "--key", key, "--reason", "yes", "--yes")
        assert code == 0, err


async def two_back(env: RunningEnvironment) -> WorkflowHandle[Any, Any]:
    """A rollback by two releases: the approvals of the bad one do not authorise that; the board is asked, and waits."""
    restore = (await env.live()).generation
    await env.completed()
    await env.completed()
    bad = (await env.live()).generation
    handle = await env.start_run("ConstitutionRollback", env.rollback_id(bad), {"reason": "two back", "to": restore})
    await env.until_step(handle, "board", "waiting")
    return handle


async def test_a_start_with_thousands_of_problems_is_refused_at_once(env: RunningEnvironment) -> None:
    handle = await env.start_run("ConstitutionUpdate", f"{env.names.namespace}/bad/{uuid4().hex[:8]}", raw(MANY))
    end = await env.end(handle, timedelta(seconds=20))
    assert end.type == "Rejected"
    assert "more than 200 values" in end.message
    assert len(end.message) < 10_000


async def test_messages_with_thousands_of_problems_stall_no_run(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    await env.until_step(handle, "board", "waiting")
    for _ in range(10):
        await handle.signal("promote", raw(MANY))
    await env.until(handle, lambda status: len(status.refusals) == 10)
    await handle.execute_update("abort", {"reason": "seen enough"})
    assert (await env.end(handle)).type == "Rejected"
    assert await env.author.current() == live


async def test_a_rollback_started_by_a_stranger_in_the_name_of_an_update_is_refused(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    waiting = await env.update(await env.author.propose())
    status = await env.until_step(waiting, "board", "waiting")
    for update_id in (status.update_id, str(uuid4())):  # of an update that waits, and of nobody
        handle = await env.start_run(
            "ConstitutionRollback",
            f"{env.names.namespace}/forged/{uuid4().hex[:8]}",
            {"reason": "x", "update_id": update_id},
        )
        end = await env.end(handle, timedelta(seconds=30))
        assert end.type == "Rejected"
        assert "nothing to undo" in end.message
        assert await free(env)
    await waiting.execute_update("abort", {"reason": "seen enough"})
    assert (await env.end(waiting)).type == "Rejected"
    assert await env.author.current() == live


@pytest.mark.slow
async def test_a_rollback_undoes_what_was_live_when_it_was_asked_for_and_nothing_newer(env: RunningEnvironment) -> None:
    handle = await two_back(env)
    await env.completed()
    newer = await env.live()
    await approve(env, handle, "alva", "bruno")
    end = await env.end(handle)
    assert end.type == "Rejected", end.message
    assert "replaced" in end.message
    assert await env.live() == newer
    assert await free(env)


@pytest.mark.slow
async def test_a_rollback_that_the_board_allows_too_late_does_not_stop_the_update_that_came_in_between(
    env: RunningEnvironment,
) -> None:
    handle = await two_back(env)
    async with env.paused(LEAF):
        update, proposal = await env.approved()
        await env.until_step(update, "sync")
        lease = await env.service.lease()
        await approve(env, handle, "alva", "bruno")
        end = await env.end(handle)
        assert end.type == "Rejected", end.message
        assert "replaced" in end.message
        assert await env.service.lease() == lease
        await env.go_on(LEAF)
        await outcomes.completed(env, update, proposal)


async def test_an_outcome_that_was_given_at_the_start_does_not_disarm_the_guard(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.author.propose()
    given = TypedSearchAttributes([SearchAttributePair(OUTCOME, Outcome.COMPLETED.value)])
    handle = await env.start_run(
        "ConstitutionUpdate", env.update_id(proposal.change_request), proposal.input, attributes=given
    )
    await env.approve(handle, proposal)
    async with env.paused(LEAF):
        await env.until_step(handle, "sync")
        guard = await env.guard_of(handle)
        await handle.terminate("an operator's mistake")
        await env.go_on(LEAF)
    assert "was rolled back" in (await env.end(guard)).result
    await outcomes.undone(env, proposal, live)


@pytest.mark.slow
async def test_an_abort_while_the_lease_is_granted_leaves_no_lease_behind(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    await env.completed()
    bad = (await env.live()).generation
    with env.service_wire.holding("POST", "/v1/constitution/lease", answered=True) as lease:
        handle = await env.start_rollback(bad)
        await lease.reached()
        with contextlib.suppress(WorkflowUpdateFailedError):
            await handle.execute_update("abort", {"reason": "changed my mind"})
        lease.drop()
        await env.end(handle)
    await eventually(lambda: free(env), timedelta(seconds=20))
    assert (await env.live()).checksum == live.checksum


@pytest.mark.slow
async def test_a_rollback_by_hand_that_waits_for_the_board_does_not_keep_a_bad_release_live(
    env: RunningEnvironment,
) -> None:
    restore = (await env.live()).generation
    await env.completed()
    before = await env.live()
    async with env.paused(LEAF):
        update, _ = await env.approved()
        status = await env.until_step(update, "sync")
        by_hand = await env.start_run(
            "ConstitutionRollback", env.rollback_id(status.generation or 0), {"reason": "two back", "to": restore}
        )
        await env.until_step(by_hand, "board", "waiting")
        await env.steer(update, "abort", "it is bad")
        end = await env.end(update, timedelta(seconds=60))
    assert end.type == "RolledBack", end.message
    assert (await env.live()).checksum == before.checksum
    runs = await env.runs_of(by_hand.id)
    assert len(runs) == 2


@pytest.mark.slow
async def test_an_outage_at_the_very_end_does_not_change_the_outcome(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    with env.service_wire.holding("POST", "/v1/constitution/audit", b"update.completed") as audit:
        handle, proposal = await env.approved()
        await audit.reached()
        env.service_wire.cut()
        audit.drop()
        await env.until(handle, lambda status: status.phase is Phase.RECORDS_PENDING)
        env.service_wire.repair()
    end = await env.end(handle)
    assert (end.type, end.result["outcome"]) == (None, Outcome.COMPLETED)
    assert await eventually(lambda: "update.completed" in env.reads.audited(handle.id))
    assert (await env.live()).checksum == proposal.checksum != live.checksum


@pytest.mark.slow
async def test_a_wait_that_is_over_is_not_shown_any_more(env: RunningEnvironment, live: CurrentConstitution) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=15)
    async with env.paused(LEAF):
        handle, _ = await env.approved(not_before=moment.isoformat())
        status = await env.until_step(handle, "sync")
        assert (status.waiting_for, status.next_command, status.phase) == ("", "", Phase.RUNNING)
        assert datetime.now(UTC) >= moment
    assert (await env.end(handle)).type is None
    assert (await env.live()).generation == live.generation + 1


async def test_a_hostile_workflow_id_is_quoted_in_the_command_to_type(env: RunningEnvironment) -> None:
    proposal = await env.author.propose()
    workflow_id = f"{env.names.namespace}/x; rm -rf ~ `id` {uuid4().hex[:8]}"
    handle = await env.start_run("ConstitutionUpdate", workflow_id, proposal.input)
    status = await env.until_step(handle, "board", "waiting")
    assert status.next_command == f"constitution approve '{workflow_id}'"
    await handle.execute_update("abort", {"reason": json.dumps("seen enough")})
    assert (await env.end(handle)).type == "Rejected"


@pytest.mark.parametrize("kind", [pytest.param("ConstitutionGuard", marks=pytest.mark.slow), "ConstitutionRollback"])
async def test_a_stranger_under_the_id_of_a_rollback_does_not_keep_a_bad_release_live(
    env: RunningEnvironment, live: CurrentConstitution, kind: str
) -> None:
    """Another type that waits for ever, or the right type on a queue where nobody works."""
    async with env.paused(LEAF):
        handle, proposal = await env.approved()
        generation = (await env.until_step(handle, "sync")).generation or 0
        queue = env.names.task_queue() if kind == "ConstitutionGuard" else f"{env.names.task_queue()}-of-nobody"
        taken = await env.client.start_workflow(
            kind,
            {
                "parent": {"workflow_id": handle.id},
                "update_id": str(uuid4()),
                "environment": ENVIRONMENT,
                "namespace": env.names.namespace,
                "archives_histories": False,
            },
            id=env.rollback_id(generation),
            task_queue=queue,
        )
        await env.steer(handle, "abort", "a mistake")
        await env.go_on(LEAF)
    await outcomes.rolled_back(env, handle, proposal, live)
    status = await env.status(handle)
    assert status.rollback_workflow == f"{taken.id}/2"
    assert any(f"{taken.id} is taken by a {kind} of queue {queue}" in said for said in status.refusals), status.refusals
    assert (await taken.describe()).status is WorkflowExecutionStatus.RUNNING
    await taken.terminate("the test is over")
