"""People who steer have names: what nobody signed is refused in words, and what an operator signed is obeyed, once."""

import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from constitution.api import LeaseRequest, OrderRequest, WorkflowRef
from constitution.errors import NotApprovedError
from constitution.messages import Phase, Status
from constitution.release import CurrentConstitution, Envelope, Kind
from constitution.rollback_plan import step_of
from deploy.embedded.development import ENVIRONMENT
from tests.helpers import eventually
from tests.workflow import outcomes
from tests.workflow.outcomes import Handle
from tests.workflow.test_by_hand import complete
from tests.world.author import Proposal
from tests.world.environment import LEAF, SOON, RunningEnvironment

NEVER = "sha256:" + "0" * 64  # of an order that nobody accepted

pytestmark = pytest.mark.timeout(240)


def message(envelope: Envelope) -> dict[str, Any]:
    return {"order": envelope.model_dump(mode="json")}


async def refusal(handle: Handle, verb: str, body: dict[str, Any]) -> str:
    """What a run says to a message that it refuses."""
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update(verb, body)
    assert isinstance(refused.value.cause, ApplicationError)
    return refused.value.cause.message


async def orders_of(env: RunningEnvironment, handle: Handle) -> list[tuple[str, str]]:
    """(operation, actor) of every order to a run that was audited as accepted."""
    return [
        (event["api"]["operation"], event["actor"]["user"]["name"])
        for event in env.reads.audit()
        if event["unmapped"].get("workflow", {}).get("workflow_id") == handle.id
        and event["api"]["operation"].startswith("order.")
    ]


@asynccontextmanager
async def live_and_unconfirmed(env: RunningEnvironment) -> AsyncIterator[tuple[Handle, Proposal]]:
    """An update whose release is live; one target has not followed."""
    async with env.paused(LEAF):
        handle, proposal = await env.approved()
        await env.until_step(handle, "sync")
        yield handle, proposal


@pytest.mark.usefixtures("live")
async def test_what_nobody_signed_is_refused_with_the_command_that_signs_it(
    env: RunningEnvironment, tmp_path: Path
) -> None:
    async with env.configured(sync=120), live_and_unconfirmed(env) as (handle, proposal):
        for verb in ("hold", "retry", "abort"):
            said = await refusal(handle, verb, {"reason": "please"})
            assert "olga" in said
            assert f"constitution order {verb} {handle.id} --print" in said
        # The command in those words, and what it prints handed to Temporal's own program.
        key = str(env.files.directory / "keys" / "olga.tsk")
        asked = ("order", "hold", proposal.change_request, "--reason", "I want to look", "--key", key, "--print")
        code, out, err = await env.constitution(*asked)
        assert code == 0, err
        (tmp_path / "order.json").write_text(out)
        code, _, err = await env.temporal(
            *("workflow", "signal", "--workflow-id", handle.id, "--name", "hold"),
            *("--input-file", str(tmp_path / "order.json")),
        )
        assert code == 0, err

        async def obeyed() -> bool:
            return await orders_of(env, handle) == [("order.hold", "olga")]

        await eventually(obeyed, SOON)
        assert f"constitution order resume {handle.id} --print" in await refusal(handle, "resume", {})
        await handle.signal("resume", {})  # nor does a signal end it
        status = await env.until(handle, lambda s: len(s.refusals) == 5)
        await env.go_on(LEAF)
        status = await env.until_step(handle, "watch", "waiting")
        assert "held by olga: I want to look" in status.waiting_for
        await env.steer(handle, "resume", "looks good")
        release = await outcomes.completed(env, handle, proposal)
    assert "a hold was ended by olga: looks good" in release.standings[-1].reason
    assert len(env.reads.told_about(proposal.version, "ended by olga: looks good")) == 1
    assert await orders_of(env, handle) == [("order.hold", "olga"), ("order.resume", "olga")]


Change = Callable[[RunningEnvironment, Handle, Status], tuple[str, Envelope]]


def changed_byte(env: RunningEnvironment, handle: Handle, status: Status) -> tuple[str, Envelope]:
    envelope = env.author.order("hold", handle.id, status)
    first = envelope.payload[0]
    return "hold", envelope.model_copy(update={"payload": ("B" if first == "A" else "A") + envelope.payload[1:]})


FALSE: dict[str, tuple[Change, str]] = {
    "a board member's": (lambda t, h, s: ("hold", t.author.order("hold", h.id, s, "alva")), "alva is no operator"),
    "an operator's promote": (
        lambda t, h, s: ("promote", t.author.order("promote", h.id, s)),
        "no member of the board",
    ),
    "for another run": (lambda t, _, s: ("hold", t.author.order("hold", "another", s)), "workflow_id"),
    "for another update": (
        lambda t, h, s: ("hold", t.author.order("hold", h.id, s, update_id=str(uuid4()))),
        "update_id",
    ),
    "for another verb": (lambda t, h, s: ("hold", t.author.order("abort", h.id, s)), "'abort', not 'hold'"),
    "for another step": (lambda t, h, s: ("retry", t.author.order("retry", h.id, s, step="archive")), "'archive'"),
    "for another environment": (
        lambda t, h, s: ("hold", t.author.order("hold", h.id, s, environment="production")),
        "environment",
    ),
    "expired": (
        lambda t, h, s: ("hold", t.author.order("hold", h.id, s, expires_at=datetime.now(UTC) - timedelta(minutes=1))),
        "expired",
    ),
    "with a changed byte": (changed_byte, "does not count"),
}


@pytest.mark.usefixtures("live")
async def test_an_order_counts_for_its_run_verb_step_and_time_alone_and_once(env: RunningEnvironment) -> None:
    async with env.configured(sync=120), live_and_unconfirmed(env) as (handle, proposal):
        status = await env.status(handle)
        for name, (change, words) in FALSE.items():
            verb, envelope = change(env, handle, status)
            assert words in await refusal(handle, verb, message(envelope)), name
        hold = env.author.order("hold", handle.id, status)
        await handle.execute_update("hold", message(hold))
        await env.steer(handle, "resume")
        assert "each counts once" in await refusal(handle, "hold", message(hold))
        await env.go_on(LEAF)
        await outcomes.completed(env, handle, proposal)


async def test_an_abort_of_what_is_live_names_who_signed_it(env: RunningEnvironment, live: CurrentConstitution) -> None:
    async with live_and_unconfirmed(env) as (handle, proposal):
        key = str(env.files.directory / "keys" / "olga.tsk")
        code, out, err = await env.constitution("abort", handle.id, "--reason", "a mistake", "--key", key)
        assert code == 0, err
        assert "stopping" in out
        await env.until(handle, lambda s: s.rollback_workflow is not None)
        await env.go_on(LEAF)
        await outcomes.rolled_back(env, handle, proposal, live)
    assert len(env.reads.told_about(proposal.version, "rolled back", "aborted by olga: a mistake")) == 1


@pytest.mark.slow
async def test_a_resume_that_was_made_up_confirms_nothing(env: RunningEnvironment, live: CurrentConstitution) -> None:
    """Whoever reaches Temporal completes the activity that asks about an order; the service has accepted none."""
    async with env.configured(sync=120), live_and_unconfirmed(env) as (handle, proposal):
        await env.steer(handle, "hold", "wait for me")
        await env.go_on(LEAF)
        status = await env.until_step(handle, "watch", "waiting")
        with env.service_wire.holding("POST", "/v1/constitution/orders") as asked:
            await handle.signal("resume", message(env.author.order("resume", handle.id, status)))
            await asked.reached()
            await complete(env, handle, "accept_order", {"digest": NEVER, "person": "olga", "reason": "go on"})
            status = await env.until(handle, lambda s: any("not confirmed: held by olga" in r for r in s.refusals))
            asked.drop()
        status = await env.until_step(handle, "watch", "waiting")
        assert (await env.service.release(live.generation + 1)).standing is None
        await env.steer(handle, "resume", "now I do")
        await outcomes.completed(env, handle, proposal)


async def test_a_rollback_that_nobody_ordered_waits_without_the_lease_for_an_order_that_is_pasted(
    env: RunningEnvironment, live: CurrentConstitution, tmp_path: Path
) -> None:
    proposal = await env.completed()
    bad = (await env.live()).generation
    handle = env.run(env.rollback_id(bad))
    code, _, err = await env.temporal(
        *("workflow", "start", "--workflow-id", handle.id, "--fail-existing", "--type", "ConstitutionRollback"),
        *("--task-queue", env.names.task_queue(), "--input", '{"reason": "it is bad"}'),
    )
    assert code == 0, err
    status = await env.until_step(handle, "request", "waiting")
    assert f"an operator's signed order to undo generation {bad} (olga)" in status.waiting_for
    assert status.next_command == f"constitution order rollback {handle.id}"
    assert await env.service.lease() is None
    assert f"constitution order rollback {handle.id} --print" in await refusal(handle, "rollback", {})
    assert (await env.live()).generation == bad

    words = shlex.split(status.next_command)[1:]
    code, out, err = await env.constitution(
        *words, "--print", "--reason", "it is bad", "--key", str(env.files.directory / "keys" / "olga.tsk")
    )
    assert code == 0, err
    (tmp_path / "order.json").write_text(out)
    code, out, err = await env.temporal(
        *("workflow", "update", "execute", "--workflow-id", handle.id, "--name", "rollback"),
        *("--input-file", str(tmp_path / "order.json")),
    )
    assert code == 0, err
    assert "ordered by olga" in out
    end = await env.end(handle)
    assert end.type is None, end.message
    undoing = await outcomes.undone(env, proposal, live)
    assert undoing.reason == "ordered by olga: it is bad"
    assert await orders_of(env, handle) == [("order.rollback", "olga")]


@pytest.mark.slow
@pytest.mark.usefixtures("live")
async def test_an_order_to_roll_back_that_was_obeyed_before_is_good_for_no_second_run(env: RunningEnvironment) -> None:
    """Whoever reads it in a history starts another run with it, under the same ids."""
    await env.completed()
    bad, update_id = (await env.live()).generation, str(uuid4())
    stand_in = Status(workflow="ConstitutionRollback", phase=Phase.RUNNING, update_id=update_id, undoes=bad)
    envelope = env.author.order("rollback", env.rollback_id(bad), stand_in)
    await env.service.accept_order(
        OrderRequest(
            update_id=update_id,
            workflow=WorkflowRef(workflow_id=env.rollback_id(bad), run_id="the first run"),
            attempt="the first run/7",
            order="rollback",
            step=step_of(bad),
            envelope=envelope,
        )
    )
    request = {"reason": "x", "bad_generation": bad, "update_id": update_id, **message(envelope)}
    again = await env.start_run("ConstitutionRollback", env.rollback_id(bad), request)
    status = await env.until_step(again, "request", "waiting")
    assert any("each counts once" in said for said in status.refusals)
    assert await env.service.lease() is None
    await again.execute_update("abort", {"reason": "no"})  # stopping is always safe
    assert (await env.end(again)).type == "Rejected"
    assert (await env.live()).generation == bad


@pytest.mark.slow
async def test_a_rollback_that_nobody_orders_in_time_changes_nothing(env: RunningEnvironment) -> None:
    await env.completed()
    bad = (await env.live()).generation
    async with env.configured(person=5):
        handle = await env.start_run("ConstitutionRollback", env.rollback_id(bad), {"reason": "x"})
        end = await env.end(handle)
    assert end.type == "Rejected"
    assert "no operator ordered it within 5 s" in end.message
    assert (await env.live()).generation == bad


@pytest.mark.slow
async def test_a_small_team_may_steer_without_signatures_and_is_audited_so(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    async with env.configured(steering="allow", sync=120):
        async with live_and_unconfirmed(env) as (handle, proposal):
            code, _, err = await env.constitution("hold", handle.id, "--reason", "wait")
            assert code == 0, err
            await env.go_on(LEAF)
            await env.until_step(handle, "watch", "waiting")
            code, _, err = await env.constitution("resume", handle.id)
            assert code == 0, err
            release = await outcomes.completed(env, handle, proposal)
        assert "ended by an unsigned message: resume" in release.standings[-1].reason
        assert await orders_of(env, handle) == [("order.hold", "unsigned"), ("order.resume", "unsigned")]
        undo = await env.start_run("ConstitutionRollback", env.rollback_id(release.generation), {"reason": "bad"})
        assert (await env.end(undo)).type is None
        assert await orders_of(env, undo) == [("order.rollback", "unsigned")]
        assert (await outcomes.undone(env, proposal, live)).reason == "ordered by an unsigned message: bad"


@pytest.mark.usefixtures("live")
async def test_the_service_hands_the_lease_of_a_rollback_to_nobody_without_an_order(env: RunningEnvironment) -> None:
    """Whoever holds the worker's token: the operator's token has the same scope."""
    bad = (await env.live()).generation
    mine = str(uuid4())
    request = LeaseRequest(update_id=mine, kind=Kind.ROLLBACK, workflow_id="x", undoes=bad)
    with pytest.raises(NotApprovedError, match=f"undo generation {bad}"):
        await env.service.acquire_lease(request, f"{ENVIRONMENT}/{mine}/lease")
    assert await env.service.lease() is None
