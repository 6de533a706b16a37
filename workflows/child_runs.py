"""A run group: an update, its guard, its rollback. How they start each other and wait for each other."""

import itertools
from collections.abc import Iterator
from datetime import timedelta

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ActivityError, ChildWorkflowError, FailureError, WorkflowAlreadyStartedError

from constitution.messages import Phase, RollbackRequest, RollbackResult
from constitution.model import Model
from constitution.names import Names
from constitution.reconciliation import RECONCILE
from workflows import policies
from workflows.calling import call
from workflows.status import Journal
from workflows.stepping import explain

with workflow.unsafe.imports_passed_through():
    from activities.deployment import DeploymentActivities, DeploymentInfo, DeploymentQuestion
    from activities.runs import RunRef, RunsActivities, RunState

UPDATE = "ConstitutionUpdate"
ROLLBACK = "ConstitutionRollback"
GUARD = "ConstitutionGuard"

FORESEEABLE = 20
"""So many ids of a rollback follow from its generation; after them come random ones, which nobody can occupy before."""

RESTART_PAUSE = timedelta(seconds=1)
"""Between a guard or rollback that was terminated and its next run; it doubles, so that a history stays small."""


class GuardRequest(Model):
    """Input of ``ConstitutionGuard``.

    Args:
        parent: the run that is guarded.
        update_id: whose releases must not stay unconfirmed.
        environment: where.
        namespace: prefix of names.
        archives_histories: whether this guard archives the event histories; a rollback under an update leaves that to
            the update's guard.
        awake: whether the parent is known to have closed, so that there is no cancel to wait for.
    """

    parent: RunRef
    update_id: str
    environment: str
    namespace: str
    archives_histories: bool
    awake: bool = False


def myself() -> RunRef:
    """Return the run by the id in its guard's id: it survives a reset, which could not be replayed otherwise."""
    info = workflow.info()
    return RunRef(workflow_id=info.workflow_id, run_id=info.original_execution_run_id)


async def was_reset() -> bool:
    """Whether `temporal workflow reset` has cut off a previous run of this one; asked once, at its end.

    An activity answers, so that the answer is in the event history: a run that is replayed after a reset takes the
    same way, although ``workflow.info()`` names another run by then.
    """
    while True:  # an undo must not end without an answer
        try:
            info = await call(
                DeploymentActivities.read_deployment,
                DeploymentQuestion(asked_by=workflow.info().workflow_type),
                policies.READ,
                "which run is this: was it reset",
            )
        except ActivityError:
            await workflow.sleep(policies.PERSISTENT_PAUSE, summary="before it is asked again")
        else:
            return info.run_id != workflow.info().original_execution_run_id


OURS = frozenset({UPDATE, ROLLBACK, GUARD, RECONCILE})


async def is_child_of_ours(info: DeploymentInfo) -> bool:
    """Whether this run was started by one of our runs; any run in Temporal can be a parent.

    A type is a name that anybody can give; that it runs on our task queue is what makes it our code. The queue's name
    is the deployment's, not this run's own: a replayer runs a history on a queue of another name.
    """
    parent = workflow.info().parent
    if parent is None or parent.namespace != workflow.info().namespace:
        return False
    pause = policies.PERSISTENT_PAUSE
    while True:
        try:
            found = await call(
                RunsActivities.describe_run,
                RunRef(workflow_id=parent.workflow_id, run_id=parent.run_id),
                policies.READ,
                "who started this run",
            )
        except ActivityError as error:
            if getattr(error.cause, "type", None) == "not-found":
                return False
            await workflow.sleep(pause, summary="before it is asked again")
            pause = min(pause * 2, policies.PERSISTENT_PAUSE_MAX)
        else:
            return found.workflow_type in OURS and found.task_queue == Names(info.namespace).task_queue()


async def deployment(journal: Journal) -> DeploymentInfo:
    """Return which environment the worker serves.

    It is asked first, so there is nothing to announce or undo yet: it goes on asking, visibly.
    """
    pause = policies.PERSISTENT_PAUSE
    while True:
        try:
            info = await call(
                DeploymentActivities.read_deployment,
                DeploymentQuestion(asked_by=workflow.info().workflow_type),
                policies.READ,
                "which environment is this worker's",
            )
        except ActivityError as error:
            journal.set(waiting_for=f"the worker: {explain(error).message}", phase=Phase.NEEDS_A_PERSON)
            await workflow.sleep(pause, summary="before the worker is asked again")
            pause = min(pause * 2, policies.PERSISTENT_PAUSE_MAX)
        else:
            journal.set(environment=info.environment, waiting_for="", phase=Phase.RUNNING)
            journal.identify()
            return info


async def roll_back(
    bad_generation: int, request: RollbackRequest, info: DeploymentInfo, journal: Journal
) -> RollbackResult:
    """Run the rollback of a generation to its end, or attach to the one that runs already.

    Returns only with a result: a rollback that was terminated is started again, and one that was started by
    somebody else is waited for; then a run of our own finds what it did and proves it. Where something else runs
    under its id, the rollback runs under another one, and the journal says so.
    """
    ids = rollback_ids(info, bad_generation)
    rollback_id = next(ids)
    pause = RESTART_PAUSE
    while True:
        try:
            handle = await workflow.start_child_workflow(
                ROLLBACK,
                request,
                id=rollback_id,
                result_type=RollbackResult,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary=f"undo generation {bad_generation}",  # why is in its input; a list shows one line
            )
            result: RollbackResult = await handle
        except WorkflowAlreadyStartedError:
            if other := await foreign_run(info, rollback_id):
                taken, rollback_id = rollback_id, next(ids)
                journal.refused(f"the id {taken} is taken by {other}, which is left alone: see {rollback_id}")
                journal.set(rollback_workflow=rollback_id)
                continue
            await _stop_waiting(rollback_id)
            await await_closed(RunRef(workflow_id=rollback_id))
        except ChildWorkflowError:
            workflow.logger.warning("rollback_restarted", extra={"rollback": rollback_id})
        else:
            return result
        await workflow.sleep(pause, summary="before the rollback is started again")
        pause = min(pause * 2, policies.PERSISTENT_PAUSE_MAX)


def rollback_ids(info: DeploymentInfo, bad_generation: int) -> Iterator[str]:
    """Yield the ids for the rollback of a generation, for as long as each one before is taken by something else.

    The same ones for every run of a group, so that they find each other; in the end ones that nobody can foresee.
    """
    first = Names(info.namespace).rollback_id(info.environment, bad_generation)
    yield first
    for number in itertools.count(2):
        yield f"{first}/{number if number <= FORESEEABLE else workflow.uuid4()}"


async def foreign_run(info: DeploymentInfo, workflow_id: str) -> str:
    """Describe the foreign run under the id of a rollback; "" if it is one of our workers', or has ended.

    Anybody who reaches Temporal may start any run under any id. A foreign run is not ours to terminate.
    """
    pause = policies.PERSISTENT_PAUSE
    while True:
        try:
            found = await call(
                RunsActivities.describe_run,
                RunRef(workflow_id=workflow_id),
                policies.READ,
                f"what runs as {workflow_id}",
            )
        except ActivityError as error:
            if getattr(error.cause, "type", None) == "not-found":
                return ""
            await workflow.sleep(pause, summary="before it is asked again")
            pause = min(pause * 2, policies.PERSISTENT_PAUSE_MAX)  # a history has an end
        else:
            ours = found.workflow_type == ROLLBACK and found.task_queue in ("", Names(info.namespace).task_queue())
            return "" if ours or found.closed else f"a {found.workflow_type[:100]} of queue {found.task_queue[:100]}"


async def _stop_waiting(rollback_id: str) -> None:
    """Have a rollback by hand that still waits for the board give way; one that has begun refuses, and goes on.

    It may wait for days, for another target than this undo's, which needs no board.
    """
    try:
        await workflow.get_external_workflow_handle(rollback_id).signal(
            "abort", {"reason": "the release is being undone by the run that published it"}
        )
    except FailureError:
        workflow.logger.info("rollback_has_ended", extra={"rollback": rollback_id})


async def await_closed(run: RunRef, update_id: str | None = None) -> RunState | None:
    """Wait until a run has closed; return its last state, or None if Temporal does not know it (any more).

    A run that was reset goes on as another one, which is waited for if it carries ``update_id``.
    """
    policy = policies.await_closed()
    pause = policies.PERSISTENT_PAUSE
    while True:
        try:
            return await call(
                RunsActivities.await_closed,
                run if update_id is None else run.model_copy(update={"update_id": update_id}),
                policy,
                f"wait until {run.workflow_id} has closed",
            )
        except ActivityError as error:
            if getattr(error.cause, "type", None) == "not-found":
                return None
            workflow.logger.warning("await_closed_again", extra={"run": run.workflow_id})
            await workflow.sleep(pause, summary="before it is asked again")
            pause = min(pause * 2, policies.PERSISTENT_PAUSE_MAX)  # a history has an end
