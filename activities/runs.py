"""The state of a run by Temporal's server; only activities may ask, so that replays never do."""

import asyncio
from datetime import timedelta

from temporalio import activity

from activities.failures import classified
from activities.ports import Runs
from constitution.model import Model

POLL = timedelta(seconds=1)  # a closed parent is noticed at once by its cancel; this only paces the wait for the rest


class RunRef(Model):
    """One run; ``run_id`` null means the latest run of the workflow id.

    ``update_id``: a run that was reset counts as the one that it became, if that one carries this update id.
    """

    workflow_id: str
    run_id: str | None = None
    update_id: str | None = None


class RunState(Model):
    """A run's state by Temporal: ``status`` is its name in capitals (RUNNING, COMPLETED, FAILED, TERMINATED, …)."""

    status: str
    workflow_id: str
    run_id: str
    workflow_type: str
    closed: bool
    task_queue: str = ""  # "": not said
    update_id: str | None = None
    reset_to: str | None = None  # the run that this one became by `temporal workflow reset`
    outcome: str | None = None  # search attribute ConstitutionOutcome: set by the run itself when it had compensated


class PendingQuestion(Model):
    """Of which run."""

    workflow_id: str
    run_id: str


class PendingActivities(Model):
    """The types of a run's pending activities that somebody has paused, and of those that no worker has taken."""

    paused: tuple[str, ...]
    untaken: tuple[str, ...]


class RunsActivities:
    """Looks at runs; changes nothing, so running it twice or late is harmless."""

    def __init__(self, *, runs: Runs) -> None:
        self._runs = runs

    @activity.defn
    @classified
    async def describe_run(self, x: RunRef) -> RunState:
        """Return the state of a run.

        Twice, killed half-way, or late: only reads.

        Raises:
            NotFoundError: no such run.
        """
        run = await self._runs.describe(x.workflow_id, x.run_id)
        return RunState(
            status=run["status"],
            workflow_id=run["workflow_id"],
            run_id=run["run_id"],
            workflow_type=run["type"],
            task_queue=run["task_queue"],
            closed=run["close_time"] is not None,
            update_id=run["update_id"],
            reset_to=run["reset_to"],
            outcome=run["outcome"],
        )

    @activity.defn
    @classified
    async def pending_activities(self, x: PendingQuestion) -> PendingActivities:
        """Return which of a run's activities are paused by hand, and which wait for a worker.

        Twice, killed half-way, or late: only reads.

        Raises:
            NotFoundError: no such run. UnavailableError: Temporal did not answer.
        """
        run = await self._runs.describe(x.workflow_id, x.run_id)
        return PendingActivities(paused=tuple(run["paused"]), untaken=tuple(run["untaken"]))

    @activity.defn
    @classified
    async def await_closed(self, x: RunRef) -> RunState:
        """Wait until a run has closed, heartbeating; returns its last state.

        A cancel is noticed at the next heartbeat. Twice, killed half-way, or late: only reads; a retry waits on.
        The first look pins the run id, so that a new run under the same workflow id does not prolong the wait.

        Raises:
            NotFoundError: no such run.
        """
        state = await self.describe_run(x)
        while True:
            pinned = RunRef(workflow_id=state.workflow_id, run_id=state.run_id)
            while not state.closed:
                activity.heartbeat(state.status)
                await asyncio.sleep(POLL.total_seconds())
                state = await self.describe_run(pinned)
            if state.reset_to is None or x.update_id is None:
                return state
            became = await self.describe_run(RunRef(workflow_id=state.workflow_id, run_id=state.reset_to))
            if became.update_id != x.update_id:  # reset to a point before it had one: it has begun anew
                return state
            state = became
