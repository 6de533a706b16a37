"""The guard of a run, kept alive for as long as the run lives; also across resets.

A reset is told here once. For the server, a run that is reset does not end: it goes on as a new run, with its history
up to a point, and the guard is not the new run's child (seen on 1.32). So the guard is woken by the run itself: it goes
on as the guard of the new run, or undoes what the old one released. Cut before the guard's start, the new run has no
guard yet, and wakes the old run's when it undoes. Cut after it, the new run knows by its random seed, which a reset
changes.
"""

import asyncio

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ChildWorkflowError, FailureError, WorkflowAlreadyStartedError

from constitution.names import Names
from workflows import policies
from workflows.child_runs import GUARD, RESTART_PAUSE, GuardRequest, myself


class GuardSupervisor:
    """Starts the guard of this run, and starts it again whenever it ends before the run does.

    Args:
        namespace: prefix of names.
    """

    def __init__(self, namespace: str) -> None:
        me = myself()
        self._guard_id = Names(namespace).guard_id(me.workflow_id, me.run_id or "")
        self._started = False
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    async def start(self, request: GuardRequest) -> None:
        """Return once a guard waits for this run's end; from then on one is kept."""
        self._tasks = (
            asyncio.create_task(self._keep(request), name="guard"),
            asyncio.create_task(self._wake_after_each_reset(), name="reset"),
        )
        await workflow.wait_condition(lambda: self._started)

    async def wake(self) -> None:
        """Wake the guard of the run that a reset has cut off; one that undoes gives way to a guard of our own."""
        try:
            await workflow.get_external_workflow_handle(self._guard_id).cancel()
        except FailureError:
            workflow.logger.info("guard_has_ended", extra={"guard": self._guard_id})

    async def _keep(self, request: GuardRequest) -> None:
        """Start the guard again when it ends: with an error if terminated, with a result if cancelled by hand."""
        pause, longest = RESTART_PAUSE, policies.PERSISTENT_PAUSE  # short: a parent that dies meanwhile is not undone
        while True:
            try:
                handle = await workflow.start_child_workflow(
                    GUARD,
                    request,
                    id=self._guard_id,
                    parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                    static_summary="dead man's switch: undoes an unconfirmed release however its parent ends",
                )
                self._started = True
                await handle
            except (ChildWorkflowError, WorkflowAlreadyStartedError) as error:
                workflow.logger.warning("guard_restarted")
                if isinstance(error, WorkflowAlreadyStartedError):  # perhaps a foreign run, which may last for days
                    longest = policies.PERSISTENT_PAUSE_MAX
                if not self._started:  # the guard of the run that was reset to a point before this, and became us
                    await self.wake()
                    self._started = True
            await workflow.sleep(pause, summary="before the guard is started again")
            pause = min(pause * 2, longest)

    async def _wake_after_each_reset(self) -> None:
        while True:
            seed = workflow.random_seed()
            await workflow.wait_condition(lambda before=seed: workflow.random_seed() != before)  # type: ignore[misc]
            await self.wake()
