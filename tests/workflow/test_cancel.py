"""Cancel at every await of an update, once and again while it undoes; and failures inside the undo itself."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType

from constitution.messages import Phase
from constitution.release import CurrentConstitution
from tests.helpers import eventually
from tests.workflow import outcomes
from tests.workflow.outcomes import Handle
from tests.world.author import Proposal
from tests.world.environment import LEAF, SOON, RunningEnvironment, state_of
from tests.world.wire import Hold

pytestmark = pytest.mark.timeout(240)

AFTER_THE_BOARD = ("stage", "validate", "lease", "publish", "confirm", "broadcast")
LATE = ("publish", "confirm")  # what was held here arrives after the undo
Ending = Callable[[RunningEnvironment, Handle, Proposal, CurrentConstitution], Awaitable[object]]


async def rejected(env: RunningEnvironment, handle: Handle, proposal: Proposal, live: CurrentConstitution) -> None:
    await outcomes.rejected(env, handle, proposal, live, "cancelled")


async def rolled_back(env: RunningEnvironment, handle: Handle, proposal: Proposal, live: CurrentConstitution) -> None:
    end, _ = await outcomes.rolled_back(env, handle, proposal, live)
    assert "cancelled" in end.message


async def completed(env: RunningEnvironment, handle: Handle, proposal: Proposal, live: CurrentConstitution) -> None:
    release = await outcomes.completed(env, handle, proposal)
    assert release.generation == live.generation + 1


# step: what the worker waits for when the cancel comes; whether it is the answer that is on its way; how the run ends
MOMENTS: dict[str, tuple[tuple[str, str, bytes], bool, Ending]] = {
    "signatures": (("GET", "/signatures", b""), False, rejected),
    "gate": (("POST", "/v1/constitution/evidence", b""), False, rejected),
    "stage": (("POST", "/v1/constitution/artifacts", b""), False, rejected),
    "validate": (("POST", "/v1/constitution/validate", b""), False, rejected),
    "lease: not asked yet": (("POST", "/v1/constitution/lease", b""), False, rejected),
    "lease: taken, and nobody knows": (("POST", "/v1/constitution/lease", b""), True, rejected),
    "publish: not loaded yet": (("POST", "/v1/constitution/load", b""), False, rejected),
    "publish: loaded, and nobody knows": (("POST", "/v1/constitution/load", b""), True, rolled_back),
    "confirm: not confirmed yet": (("POST", "/standing", b""), False, completed),
    "confirm: confirmed, and nobody knows": (("POST", "/standing", b""), True, completed),
    "broadcast": (("POST", "chat.postMessage", b"completed"), False, completed),
}
RESTORE = ("POST", "/v1/constitution/load", b'"rollback"')  # the load of a rollback, not of the update before it
ALWAYS = ("publish: not loaded yet",)


async def noticed(handle: Handle) -> None:
    """Wait until the run has worked on the cancel."""

    async def worked() -> bool:
        types = [event.event_type for event in (await handle.fetch_history()).events]
        asked = types.index(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED)
        return EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED in types[asked:]

    await eventually(worked, SOON)


@pytest.mark.parametrize(
    "moment", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow) for name in MOMENTS]
)
async def test_a_cancel_while_a_step_waits_for_an_answer(
    env: RunningEnvironment, live: CurrentConstitution, moment: str
) -> None:
    request, answered, ending = MOMENTS[moment]
    wire = env.slack_wire if moment == "broadcast" else env.service_wire
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    if moment.startswith(AFTER_THE_BOARD):
        await env.until_step(handle, "board", "waiting")
    with wire.holding(*request, answered=answered) as held:
        if moment.startswith(AFTER_THE_BOARD):
            await env.approve(handle, proposal)
        await held.reached()
        await handle.cancel()
        await noticed(handle)
        if not moment.startswith(LATE):
            held.release()
        await ending(env, handle, proposal, live)
        held.release()
        await held.over()


async def test_a_cancel_while_the_board_is_waited_for(env: RunningEnvironment, live: CurrentConstitution) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    await env.until_step(handle, "board", "waiting")
    await handle.cancel()
    await rejected(env, handle, proposal, live)


async def undoing(env: RunningEnvironment, *, load: Hold) -> tuple[Handle, Proposal, Handle]:
    """Bring an update to the moment in which its rollback restores."""
    handle, proposal = await env.approved()
    await env.until_step(handle, "sync")
    await env.steer(handle, "abort", "a mistake")
    status = await env.until(handle, lambda s: s.rollback_workflow is not None)
    await load.reached()
    return handle, proposal, env.run(status.rollback_workflow or "")


async def test_cancels_while_it_undoes_change_nothing(env: RunningEnvironment, live: CurrentConstitution) -> None:
    async with env.paused(LEAF):
        with env.service_wire.holding(*RESTORE) as load:
            handle, proposal, rollback = await undoing(env, load=load)
            for run in (handle, rollback, await env.guard_of(handle)):
                await run.cancel()
                await noticed(run)
            load.release()
            await env.go_on(LEAF)
            end, _ = await outcomes.rolled_back(env, handle, proposal, live)
    assert "aborted by olga: a mistake" in end.message  # the reason is the first one


@pytest.mark.slow
async def test_an_undo_that_fails_goes_on_until_it_succeeds(env: RunningEnvironment, live: CurrentConstitution) -> None:
    async with env.paused(LEAF):
        with env.service_wire.holding(*RESTORE) as load:
            handle, proposal, rollback = await undoing(env, load=load)
            env.service_wire.cut()
            load.drop()
            status = await env.until(rollback, lambda s: state_of(s, "publish") == "waiting", timedelta(seconds=120))
            assert status.phase in (Phase.ROLLING_BACK, Phase.NEEDS_A_PERSON)
            assert (await env.status(handle)).phase is Phase.ROLLING_BACK
        env.service_wire.repair()
        await env.steer(rollback, "retry")
        await env.go_on(LEAF)
        await outcomes.rolled_back(env, handle, proposal, live)


@pytest.mark.slow
async def test_a_lease_that_cannot_be_given_back_at_once_is_given_back_later(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal)
    service = env.service_wire
    with service.holding("POST", "/v1/constitution/load") as load, service.holding("DELETE", "/lease") as giving:
        await env.approve(handle, proposal)
        await load.reached()
        await handle.cancel()
        await giving.reached()
        service.cut()
        giving.drop()
        load.drop()
        await env.until(handle, lambda s: state_of(s, "lease") == "waiting", timedelta(seconds=120))
    service.repair()
    await env.steer(handle, "retry")
    await rejected(env, handle, proposal, live)
    assert await env.service.lease() is None
