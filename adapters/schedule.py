"""The Temporal Schedule that runs reconciliation. Temporal's client is a driver here; no workflow code is imported."""

from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError

from constitution.errors import UnavailableError
from constitution.names import Names
from constitution.reconciliation import RECONCILE, ReconcileRequest

LONGEST = timedelta(minutes=10)  # of one run: one that hangs must not keep all later ones from starting
CATCH_UP = timedelta(seconds=60)  # after an outage of Temporal one run is enough: it compares the present state


async def schedule_reconciliation(
    client: Client, names: Names, environment: str, *, every: timedelta, closed_seconds: float
) -> str:
    """Make the schedule, or bring the one that exists to these settings; return its id.

    A schedule that a person has paused stays paused. Safe to call from several workers at once.

    Args:
        client: connected.
        names: of schedule and task queue.
        environment: that is reconciled.
        every: interval between two runs; a run that would start while one is open is skipped.
        closed_seconds: see ``ReconcileRequest``.

    Raises:
        UnavailableError: Temporal does not take it.
    """
    identity = names.reconcile_id(environment)
    wanted = Schedule(
        action=ScheduleActionStartWorkflow(
            RECONCILE,
            ReconcileRequest(repair=True, closed_seconds=closed_seconds),
            id=identity,
            task_queue=names.task_queue(),
            execution_timeout=LONGEST,
            static_summary=f"compare and repair {environment}",
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=CATCH_UP),
    )

    def changed(found: ScheduleUpdateInput) -> ScheduleUpdate:
        wanted.state = found.description.schedule.state
        return ScheduleUpdate(schedule=wanted)

    try:
        try:
            await client.create_schedule(identity, wanted)
        except ScheduleAlreadyRunningError:
            await client.get_schedule_handle(identity).update(changed)
    except RPCError as error:
        raise UnavailableError(
            f"the schedule {identity} cannot be made: {error.message}",
            hint="without it nothing is reconciled by itself; RECONCILE_SECONDS=0 starts this worker all the same",
        ) from error
    return identity
