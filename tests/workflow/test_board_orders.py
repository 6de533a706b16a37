"""A board's signed orders, obeyed: promote ends a hold and confirms; skip goes on without a record that is stuck."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowHandle

from constitution.messages import Phase
from constitution.release import Standing
from constitution.trust.approval import OrderPredicate
from signatures.statements import sign_order
from tests.workflow import outcomes
from tests.world.environment import LEAF, RunningEnvironment, state_of
from tests.world.files import ENVIRONMENT

pytestmark = pytest.mark.timeout(240)


async def order(
    env: RunningEnvironment, handle: WorkflowHandle[Any, Any], person: str, verb: str, step: str | None
) -> str:
    """Have a member of the board order it; return what the run answers."""
    status = await env.status(handle)
    now = datetime.now(UTC)
    predicate = OrderPredicate(
        environment=ENVIRONMENT,
        workflow_id=handle.id,
        update_id=status.update_id or "",
        order=verb,
        step=step,
        reason="we looked ourselves",
        issued_at=now,
        expires_at=now + timedelta(hours=1),
    )
    signed = sign_order(predicate, env.files.tsk(person)).model_dump(mode="json")
    answer: str = await handle.execute_update(verb, {"order": signed})
    return answer


@pytest.mark.usefixtures("live")
async def test_a_promote_ends_a_hold_and_a_later_one_changes_no_record(env: RunningEnvironment) -> None:
    async with env.paused(LEAF):
        handle, proposal = await env.approved()
        await env.until_step(handle, "sync")
        await env.steer(handle, "hold", "wait for me")
        await env.go_on(LEAF)
        held = await env.until_step(handle, "watch", "waiting")
    assert (await env.service.release(held.generation or 0)).standing is None
    with env.service_wire.holding("POST", "/standing") as confirm:
        assert await order(env, handle, "alva", "promote", None) == "promoted by order of alva"
        await confirm.reached()
        assert await order(env, handle, "bruno", "promote", None) == "promoted by order of alva"
        confirm.release()
        await outcomes.completed(env, handle, proposal)  # every record says the same
    assert "promoted by alva" in (await env.status(handle)).outcome_detail


@pytest.mark.usefixtures("live")
async def test_a_skip_goes_on_without_the_record_that_is_stuck(env: RunningEnvironment) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    with env.service_wire.holding("POST", "/standing") as confirm:
        await env.approve(handle, proposal)
        await confirm.reached()
        env.slack_wire.cut()
        confirm.release()
        stuck = await env.until(handle, lambda s: s.phase is Phase.RECORDS_PENDING, timedelta(seconds=120))
    assert stuck.step == "broadcast"
    for person in ("alva", "bruno"):
        answer = await order(env, handle, person, "skip", "broadcast")
        if "skipped by order" in answer:
            break
    end = await env.end(handle)
    assert end.type is None, end.message
    status = await env.status(handle)
    assert (state_of(status, "broadcast"), state_of(status, "archive")) == ("skipped", "done")
    assert (await env.service.release(status.generation or 0)).standing is Standing.CONFIRMED
    assert env.reads.told_about(proposal.version, "completed") == []
    env.slack_wire.repair()
