"""A worker of the attacker's own, which polls the runbook's task queue and answers for workflows of our names.

So its activities come from a run of ours by all that Temporal can say (activities/callers.py): only what checks
signatures stands in the way. It shares no code with the product's workflows.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from temporalio import workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

AT_ONCE: Final = 8
TRIES: Final = 40  # the genuine workers take some of the runs; each of them is refused there
TAKEN: Final = timedelta(seconds=120)  # a batch of activities has ended by then

Task = dict[str, Any]
"""``{activity, queue, input, seconds}``: what to ask whom, with what, and how long to wait for the answer."""


async def _ask_all(tasks: list[Task]) -> list[str]:
    """Ask for each activity once; return what became of each."""
    places = asyncio.Semaphore(AT_ONCE)

    async def ask(task: Task) -> str:
        async with places:
            try:
                answer = await workflow.execute_activity(
                    task["activity"],
                    task["input"],
                    task_queue=task["queue"],
                    schedule_to_close_timeout=timedelta(seconds=task["seconds"]),
                    heartbeat_timeout=timedelta(seconds=task["seconds"]),
                    retry_policy=RetryPolicy(maximum_attempts=1),
                )
            except ActivityError as error:
                cause = error.cause
                if isinstance(cause, ApplicationError):
                    return f"refused: {cause.type}: {cause.message[:300]}"
                return f"ended: {type(cause).__name__}"
            return f"answered: {str(answer)[:300]}"

    return list(await asyncio.gather(*(ask(task) for task in tasks)))


@workflow.defn(name="ConstitutionUpdate")
class CapturedUpdate:
    """Answers for an update."""

    @workflow.run
    async def run(self, tasks: list[Task]) -> list[str]:
        """Ask for activities."""
        return await _ask_all(tasks)


@workflow.defn(name="ConstitutionRollback")
class CapturedRollback:
    """Answers for a rollback."""

    @workflow.run
    async def run(self, tasks: list[Task]) -> list[str]:
        """Ask for activities."""
        return await _ask_all(tasks)


class Captor:
    """Has the product's activities run by runs that it has captured.

    Args:
        client: connected to Temporal, with no key of anybody.
        task_queue: of the runbook.
        prefix: of the ids of its runs.
    """

    def __init__(self, client: Client, task_queue: str, prefix: str) -> None:
        self._client = client
        self._task_queue = task_queue
        self._prefix = prefix
        self.lost = 0

    @contextlib.asynccontextmanager
    async def polling(self) -> AsyncIterator[None]:
        """Poll beside the genuine workers until the block ends."""
        async with Worker(
            self._client,
            task_queue=self._task_queue,
            workflows=[CapturedUpdate, CapturedRollback],
            workflow_runner=UnsandboxedWorkflowRunner(),
            max_concurrent_workflow_task_polls=20,
        ):
            yield

    async def ask(self, kind: str, tasks: list[Task]) -> list[str]:
        """Have activities run by a captured run of this workflow type; return what became of each.

        Raises:
            AssertionError: the genuine workers took every one of the runs.
        """
        for _ in range(TRIES):
            handle = await self._client.start_workflow(
                kind,
                args=[tasks],
                id=f"{self._prefix}/{uuid4().hex[:12]}",
                task_queue=self._task_queue,
                execution_timeout=TAKEN,
                result_type=list[str],
            )
            try:
                return list(await handle.result())
            except WorkflowFailureError as error:
                if not isinstance(error.cause, ApplicationError | CancelledError):
                    raise
                self.lost += 1
        raise AssertionError(f"no run of {kind} was captured in {TRIES} tries")
