"""Activities run for our own runs only: not by themselves, and not for a foreign workflow.

A person who reaches Temporal can ask our task queue for any activity, with the worker's rights: as a standalone one
(``temporal activity start``), or from a foreign workflow. Anybody can give a workflow our type's name; a run is ours if
it waits on our task queue itself. A process that can poll that queue can answer like our workers; this check cannot
tell it apart (SECURITY.md). Temporal is asked once a run.
"""

from collections import OrderedDict
from collections.abc import Collection
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from activities.failures import to_application_error
from activities.ports import Runs
from constitution.errors import ConstitutionError, ForbiddenError

REMEMBERED = 4096
"""Runs that were found to be ours; one is a hundred bytes, and one that is forgotten is asked about again."""


class OnlyOurRuns(Interceptor):
    """Refuses every activity that none of our runs has asked for.

    Args:
        runs: asks Temporal.
        task_queue: ours, of workflows and activities alike.
        workflows: the names of our workflow types.
    """

    def __init__(self, *, runs: Runs, task_queue: str, workflows: Collection[str]) -> None:
        self._runs = runs
        self._task_queue = task_queue
        self._workflows = frozenset(workflows)
        self._ours: OrderedDict[str, None] = OrderedDict()

    def intercept_activity(
        self,
        next: ActivityInboundInterceptor,  # noqa: A002 - the SDK's name
    ) -> ActivityInboundInterceptor:
        """Stand before each activity."""
        return _Asked(next, self)

    async def require(self, info: activity.Info) -> None:
        """Return if one of our runs has asked for this activity.

        Raises:
            ForbiddenError: it was started by itself, or by a workflow that is none of ours.
            UnavailableError: Temporal does not say.
        """
        if info.workflow_id is None or info.workflow_run_id is None:
            raise self._refusal(info, "it was started by itself, by no run")
        if info.workflow_run_id in self._ours:
            return
        if info.workflow_type not in self._workflows:
            raise self._refusal(info, f"a {info.workflow_type} is no workflow of ours")
        caller = await self._runs.describe(info.workflow_id, info.workflow_run_id)
        if caller["task_queue"] != self._task_queue or caller["type"] not in self._workflows:
            raise self._refusal(info, f"its run is a {caller['type']} of task queue {caller['task_queue']}")
        self._ours[info.workflow_run_id] = None
        if len(self._ours) > REMEMBERED:
            self._ours.popitem(last=False)

    def _refusal(self, info: activity.Info, why: str) -> ForbiddenError:
        return ForbiddenError(
            f"{info.activity_type} is no activity for everybody: {why}",
            hint="the verbs update, rollback and doctor start the runs that may ask for it",
        )


class _Asked(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, ours: OnlyOurRuns) -> None:  # noqa: A002 - the SDK's name
        super().__init__(next)
        self._ours_only = ours

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - the SDK's name
        try:
            await self._ours_only.require(activity.info())
        except ConstitutionError as error:
            activity.logger.warning("activity_refused", extra={"reason": error.message})
            raise to_application_error(error) from error
        return await self.next.execute_activity(input)
