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
from tests.workflow.town import LEAF, SOON, Proposal, Town, state_of
from tests.workflow.wire import Hold

pytestmark = pytest.mark.timeout(240)

AFTER_THE_BOARD = ("stage", "validate", "lease", "publish", "confirm", "broadcast")
LATE = ("publish", "confirm")  # what was held here arrives after the undo
Ending = Callable[[Town, Handle, Proposal, CurrentConstitution], Awaitable[object]]


async def rejected(town: Town, handle: Handle, proposal: Proposal, live: CurrentConstitution) -> None:
    await outcomes.rejected(town, handle, proposal, live, "cancelled")


async def rolled_back(town: Town, handle: Handle, proposal: Proposal, live: CurrentConstitution) -> None:
    end, _ = await outcomes.rolled_back(town, handle, proposal, live)
    assert "cancelled" in end.message


async def completed(town: Town, handle: Handle, proposal: Proposal, live: CurrentConstitution) -> None:
    release = await outcomes.completed(town, handle, proposal)
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
    "confirm: not confirmed yet": (("POST", "/standing", b""), False, rolled_back),
    "confirm: confirmed, and nobody knows": (("POST", "/standing", b""), True, completed),
    "broadcast": (("POST", "chat.postMessage", b"completed"), False, completed),
}
RESTORE = ("POST", "/v1/constitution/load", b'"rollback"')  # the load of a rollback, not of the update before it
ALWAYS = ("lease: taken, and nobody knows", "publish: loaded, and nobody knows", "confirm: confirmed, and nobody knows")


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
async def test_a_cancel_while_a_step_waits_for_an_answer(town: Town, live: CurrentConstitution, moment: str) -> None:
    request, answered, ending = MOMENTS[moment]
    wire = town.slack_wire if moment == "broadcast" else town.service_wire
    proposal = await town.propose()
    handle = await town.update(proposal)
    if moment.startswith(AFTER_THE_BOARD):
        await town.until_step(handle, "board", "waiting")
    with wire.holding(*request, answered=answered) as held:
        if moment.startswith(AFTER_THE_BOARD):
            await town.approve(handle, proposal)
        await held.reached()
        await handle.cancel()
        await noticed(handle)
        if not moment.startswith(LATE):
            held.release()
        await ending(town, handle, proposal, live)
        held.release()
        await held.over()


async def test_a_cancel_while_the_board_is_waited_for(town: Town, live: CurrentConstitution) -> None:
    proposal = await town.propose()
    handle = await town.update(proposal)
    await town.until_step(handle, "board", "waiting")
    await handle.cancel()
    await rejected(town, handle, proposal, live)


async def undoing(town: Town, *, load: Hold) -> tuple[Handle, Proposal, Handle]:
    """Bring an update to the moment in which its rollback restores."""
    handle, proposal = await town.approved()
    await town.until_step(handle, "sync")
    await handle.execute_update("abort", {"reason": "a mistake"})
    status = await town.until(handle, lambda s: s.rollback_workflow is not None)
    await load.reached()
    return handle, proposal, town.run(status.rollback_workflow or "")


async def test_cancels_while_it_undoes_change_nothing(town: Town, live: CurrentConstitution) -> None:
    async with town.paused(LEAF):
        with town.service_wire.holding(*RESTORE) as load:
            handle, proposal, rollback = await undoing(town, load=load)
            for run in (handle, rollback, await town.guard_of(handle)):
                await run.cancel()
                await noticed(run)
            load.release()
            await town.go_on(LEAF)
            end, _ = await outcomes.rolled_back(town, handle, proposal, live)
    assert "aborted: a mistake" in end.message  # the reason is the first one


@pytest.mark.slow
async def test_an_undo_that_fails_goes_on_until_it_succeeds(town: Town, live: CurrentConstitution) -> None:
    async with town.paused(LEAF):
        with town.service_wire.holding(*RESTORE) as load:
            handle, proposal, rollback = await undoing(town, load=load)
            town.service_wire.cut()
            load.drop()
            status = await town.until(rollback, lambda s: state_of(s, "publish") == "waiting", timedelta(seconds=120))
            assert status.phase in (Phase.ROLLING_BACK, Phase.NEEDS_A_PERSON)
            assert (await town.status(handle)).phase is Phase.ROLLING_BACK
        town.service_wire.mend()
        await rollback.execute_update("retry", {})
        await town.go_on(LEAF)
        await outcomes.rolled_back(town, handle, proposal, live)


@pytest.mark.slow
async def test_a_lease_that_cannot_be_given_back_at_once_is_given_back_later(
    town: Town, live: CurrentConstitution
) -> None:
    proposal = await town.propose()
    handle = await town.update(proposal)
    service = town.service_wire
    with service.holding("POST", "/v1/constitution/load") as load, service.holding("DELETE", "/lease") as giving:
        await town.approve(handle, proposal)
        await load.reached()
        await handle.cancel()
        await giving.reached()
        service.cut()
        giving.drop()
        load.drop()
        await town.until(handle, lambda s: state_of(s, "lease") == "waiting", timedelta(seconds=120))
    service.mend()
    await handle.execute_update("retry", {})
    await rejected(town, handle, proposal, live)
    assert await town.service.lease() is None
