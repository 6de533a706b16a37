"""What somebody who reaches Temporal does to our activities by hand: it confirms nothing, and it stalls nothing.

Every attack is one that `temporal activity …`, or a worker of somebody else, can make.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio import workflow
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from constitution.messages import Phase
from constitution.release import CurrentConstitution, Standing, Verdict
from constitution.trust.approval import BoardDecision, OrderPredicate
from deploy.embedded.development import ENVIRONMENT
from signatures.statements import sign_order
from tests.helpers import eventually
from tests.workflow import outcomes
from tests.workflow.outcomes import Handle
from tests.world.environment import LEAF, SOON, RunningEnvironment, state_of

pytestmark = pytest.mark.timeout(300)

OK_REPORT = {
    "verdict": "ok",
    "detail": "all is well",
    "decided_at": "2026-01-01T00:00:00Z",
    "ratio": 1.0,
    "log_e": 0.0,
    "ci": [0.9, 1.1],
    "coverage": 1.0,
    "samples": 1000,
    "query": "x",
    "evidence": None,
}
ALL_OBEY = {"converged": [LEAF], "lagging": [], "unreachable": []}


async def pending(handle: Handle, activity: str) -> str:
    """The id of a pending activity."""

    async def found() -> str | None:
        said = (await handle.describe()).raw_description.pending_activities
        return next((one.activity_id for one in said if one.activity_type.name == activity), None)

    identity = await eventually(found, SOON)
    assert identity is not None
    return identity


async def by_hand(env: RunningEnvironment, verb: str, handle: Handle, activity: str, *more: str) -> None:
    """Do something to a pending activity with Temporal's own command line."""
    identity = await pending(handle, activity)
    code, _, err = await env.temporal("activity", verb, "--workflow-id", handle.id, "--activity-id", identity, *more)
    assert code == 0, err


async def complete(env: RunningEnvironment, handle: Handle, activity: str, result: object) -> None:
    await by_hand(env, "complete", handle, activity, "--result", json.dumps(result))


@pytest.mark.slow
@pytest.mark.usefixtures("live")
async def test_a_watch_report_that_was_made_up_confirms_nothing(env: RunningEnvironment) -> None:
    handle, proposal = await env.approved(strategy="unseen")
    await complete(env, handle, "watch_metric", OK_REPORT)
    release = await outcomes.completed(env, handle, proposal)  # by the watch that was asked again
    assert release.standings[-1].verdict in (Verdict.NO_DATA, Verdict.CANNOT_TELL)
    assert release.standings[-1].recorded_at >= release.effective_at + timedelta(seconds=20)
    assert any(
        "not confirmed: no assessor has signed that it watched" in said for said in (await env.status(handle)).refusals
    )


@pytest.mark.slow
async def test_a_sync_report_that_was_made_up_confirms_nothing(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    async with env.paused(LEAF):
        handle, proposal = await env.approved()
        await complete(env, handle, "sync_targets", ALL_OBEY)
        end = await env.end(handle)
    assert end.type == "RolledBack", end.message
    await outcomes.undone(env, proposal, live)


@pytest.mark.slow
@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("activity", ["watch_metric", "sync_targets"])
async def test_a_result_that_is_none_stalls_no_run(env: RunningEnvironment, activity: str) -> None:
    async with env.paused(LEAF):
        handle, proposal = await env.approved(strategy="unseen")
        if activity == "watch_metric":
            await env.go_on(LEAF)
        await complete(env, handle, activity, "fine")
        assert (await env.status(handle)).phase in (Phase.RUNNING, Phase.WAITING)
        if activity == "sync_targets":
            await env.go_on(LEAF)
        await outcomes.completed(env, handle, proposal)


async def test_a_confirmation_that_was_made_up_leaves_nothing_unconfirmed_live(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    with env.service_wire.holding("POST", "/standing") as confirming:
        handle, proposal = await env.approved()
        await confirming.reached()
        generation = (await env.status(handle)).generation
        await complete(env, handle, "record_standing", {"generation": generation, "standing": "confirmed"})
        confirming.drop()
    end, _ = await outcomes.rolled_back(env, handle, proposal, live)
    assert "the result of confirm was not the worker's" in end.message


async def test_whoever_goes_on_completing_an_activity_by_hand_has_the_release_undone(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    handle, proposal = await env.approved(strategy="unseen")
    for _ in range(3):
        before = await pending(handle, "watch_metric")
        await complete(env, handle, "watch_metric", "fine")

        async def gone(identity: str = before) -> bool:
            said = (await handle.describe()).raw_description.pending_activities
            return all(one.activity_id != identity for one in said)

        await eventually(gone, SOON)
    end, _ = await outcomes.rolled_back(env, handle, proposal, live)
    assert "completed by hand" in end.message


@pytest.mark.slow
async def test_a_paused_activity_is_named_and_its_release_is_undone_at_the_deadline(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    async with env.paused(LEAF):
        handle, proposal = await env.approved()
        await by_hand(env, "pause", handle, "sync_targets")

        async def found() -> bool:
            code, out, _ = await env.constitution("doctor")
            assert code != 0
            return "activity-paused" in out

        await eventually(found, SOON)
        status = await env.until(handle, lambda s: "paused by hand" in s.waiting_for)
        assert state_of(status, "sync") == "running"
        end = await env.end(handle, timedelta(seconds=200))
    assert "paused by hand" in end.message
    await outcomes.undone(env, proposal, live)


@workflow.defn(name="ConstitutionUpdate", sandboxed=False)
class Foreign:
    """Hostile: bears the name of ours, runs elsewhere, and asks our queue for an activity."""

    @workflow.run
    async def run(self, asked: list[Any]) -> Any:
        queue, activity, argument = asked
        return await workflow.execute_activity(
            activity, argument, task_queue=queue, start_to_close_timeout=timedelta(seconds=20)
        )


@workflow.defn(name="Parent", sandboxed=False)
class Parent:
    """Hostile: starts a rollback of ours as its child, which takes its word for its update id."""

    @workflow.run
    async def run(self, asked: list[Any]) -> Any:
        queue, identity, request = asked
        return await workflow.execute_child_workflow(
            "ConstitutionRollback",
            request,
            id=identity,
            task_queue=queue,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        )


async def test_no_activity_runs_for_a_foreign_workflow_or_by_itself(
    env: RunningEnvironment, live: CurrentConstitution
) -> None:
    argument = {"environment": ENVIRONMENT, "update_id": str(uuid4()), "kind": "rollback", "workflow_id": "x"}
    queue = f"foreign-{uuid4().hex[:8]}"
    async with Worker(env.client, task_queue=queue, workflows=[Foreign], workflow_runner=UnsandboxedWorkflowRunner()):
        with pytest.raises(WorkflowFailureError) as refused:
            await env.client.execute_workflow(
                "ConstitutionUpdate",
                [env.names.task_queue(), "acquire_lease", argument],
                id=f"{queue}/1",
                task_queue=queue,
            )
    assert isinstance(refused.value.cause, ActivityError)
    assert isinstance(refused.value.cause.cause, ApplicationError)
    assert refused.value.cause.cause.type == "forbidden"
    assert await env.service.lease() is None
    code, out, err = await env.temporal(
        *("activity", "start", "--type", "acquire_lease", "--task-queue", env.names.task_queue()),
        *("--activity-id", f"{queue}/2", "--start-to-close-timeout", "20s", "--input", json.dumps(argument)),
    )
    assert code != 0, (out, err)
    assert await env.service.lease() is None
    assert await env.author.current() == live


@pytest.mark.slow
async def test_a_rollback_under_a_foreign_parent_is_one_that_was_started_by_hand(env: RunningEnvironment) -> None:
    restore = (await env.live()).generation
    await env.completed()
    await env.completed()
    bad = await env.service.release((await env.live()).generation)
    queue = f"foreign-{uuid4().hex[:8]}"
    request = {"reason": "x", "update_id": bad.update_id, "bad_generation": bad.generation, "to": restore}
    async with Worker(env.client, task_queue=queue, workflows=[Parent], workflow_runner=UnsandboxedWorkflowRunner()):
        await env.client.start_workflow(
            "Parent",
            [env.names.task_queue(), env.rollback_id(bad.generation), request],
            id=f"{queue}/1",
            task_queue=queue,
        )
        handle = env.run(env.rollback_id(bad.generation))
        await env.until_step(handle, "board", "waiting")
        assert await env.service.lease() is None
        await handle.execute_update("abort", {"reason": "no"})
        assert (await env.end(handle)).type == "Rejected"
    assert (await env.live()).generation == bad.generation


@pytest.mark.parametrize(
    "more",
    [pytest.param(lambda _: {"verdict": "anomaly"}, marks=pytest.mark.slow), lambda digest: {"watch_evidence": digest}],
    ids=["a verdict", "evidence of something else"],
)
async def test_a_rollback_by_hand_poisons_nothing_by_its_word(
    env: RunningEnvironment, live: CurrentConstitution, more: Callable[[str], dict[str, Any]]
) -> None:
    proposal = await env.completed()
    bad = (await env.live()).generation
    digest = proposal.checksum
    handle = await env.start_rollback(bad, "x", **more(digest))
    end = await env.end(handle)
    if "verdict" in more(digest):
        assert end.type == "Rejected"
        assert "/verdict" in end.message
        assert (await env.service.release(bad)).standing is Standing.CONFIRMED
        return
    assert end.type is None, end.message
    await outcomes.undone(env, proposal, live)  # withdrawn


@pytest.mark.usefixtures("live")
async def test_a_hold_is_kept_where_nothing_is_watched(env: RunningEnvironment) -> None:
    async with env.paused(LEAF):
        handle, proposal = await env.approved()
        await env.until_step(handle, "sync")
        assert "held" in await env.steer(handle, "hold", "wait for me")
        await env.go_on(LEAF)
        status = await env.until_step(handle, "watch", "waiting")
        assert "wait for me" in status.waiting_for
        assert (await env.service.release(status.generation or 0)).standing is None
        await env.steer(handle, "resume")
        await outcomes.completed(env, handle, proposal)


async def test_a_board_member_denies_until_it_is_live(env: RunningEnvironment, live: CurrentConstitution) -> None:
    moment = datetime.now(UTC) + timedelta(hours=1)
    handle, proposal = await env.approved(not_before=moment.isoformat())
    status = await env.until_step(handle, "lease", "waiting")
    envelope = env.author.approval("chen", proposal, status, decision=BoardDecision.DENY, reason="second thoughts")
    answer = await handle.execute_update("decide", {"approval": envelope.model_dump(mode="json")})
    assert "denied" in answer
    await outcomes.rejected(env, handle, proposal, live, "second thoughts", denied_by="chen")


@pytest.mark.slow
async def test_a_promote_before_the_publish_is_refused(env: RunningEnvironment, live: CurrentConstitution) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal, strategy="unseen")
    status = await env.until_step(handle, "board", "waiting")
    now = datetime.now(UTC)
    order = OrderPredicate(
        environment=ENVIRONMENT,
        workflow_id=handle.id,
        update_id=status.update_id or "",
        order="promote",
        step=None,
        reason="quickly",
        issued_at=now,
        expires_at=now + timedelta(hours=1),
    )
    signed = {"order": sign_order(order, env.files.tsk("alva")).model_dump(mode="json")}
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update("promote", signed)
    assert isinstance(refused.value.cause, ApplicationError)
    assert "nothing is published yet" in refused.value.cause.message
    await handle.execute_update("abort", {"reason": "seen enough"})
    await outcomes.rejected(env, handle, proposal, live)


@pytest.mark.slow
@pytest.mark.usefixtures("live")
async def test_a_watch_that_cannot_see_is_found_before_anybody_signs(env: RunningEnvironment) -> None:
    proposal = await env.author.propose()
    handle = await env.update(proposal, strategy="watched")
    end = await env.end(handle)
    assert end.type == "Rejected"
    assert "not published blind" in end.message
    status = await env.status(handle)
    assert (state_of(status, "board"), status.approvers) == ("pending", ())
