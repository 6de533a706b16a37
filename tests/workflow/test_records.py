"""After confirmation nothing is undone: an outage of Slack, of its answers, or of the SIEM only delays the records."""

from datetime import timedelta

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from constitution.messages import Phase
from constitution.release import Standing
from tests.workflow import outcomes
from tests.world.environment import RunningEnvironment, state_of

pytestmark = pytest.mark.timeout(240)


@pytest.mark.slow
@pytest.mark.usefixtures("live")
async def test_an_outage_of_slack_leaves_the_release_live_and_is_told_once_when_it_is_over(
    env: RunningEnvironment,
) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    with env.service_wire.holding("POST", "/standing") as confirm:
        await env.approve(handle, proposal)
        await confirm.reached()
        env.slack_wire.cut()
        confirm.release()
        status = await env.until(handle, lambda s: s.phase is Phase.RECORDS_PENDING, timedelta(seconds=120))
    assert (status.step, state_of(status, "broadcast")) == ("broadcast", "waiting")
    assert "Slack did not answer" in status.waiting_for
    assert (await env.live()).checksum == proposal.checksum
    assert (await env.service.release(status.generation or 0)).standing is Standing.CONFIRMED
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update("abort", {"reason": "too late"})
    assert isinstance(refused.value.cause, ApplicationError)
    assert f"constitution rollback --bad-generation {status.generation} " in refused.value.cause.message
    env.slack_wire.repair()
    await env.steer(handle, "retry")
    await outcomes.completed(env, handle, proposal)


@pytest.mark.usefixtures("live")
async def test_a_post_whose_answer_was_lost_is_found_again(env: RunningEnvironment) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    with env.slack_wire.holding("POST", "chat.postMessage", b"completed", answered=True) as telling:
        await env.approve(handle, proposal)
        await telling.reached()
        telling.drop()
        await outcomes.completed(env, handle, proposal)
    assert telling.is_dropped


@pytest.mark.usefixtures("live")
@pytest.mark.slow
async def test_a_siem_that_stands_still_delays_the_archive_and_nothing_else(env: RunningEnvironment) -> None:
    async with env.paused("siem-forwarder"):
        handle, proposal = await env.approved()
        status = await env.until_step(handle, "archive")
        assert status.outcome is None
        assert (await env.live()).checksum == proposal.checksum
        await env.go_on("siem-forwarder")
        await outcomes.completed(env, handle, proposal)
