"""Follows a run in Temporal's own history and kills, in each step once, the process that runs it: worker or assessor.

The history is read and not the query ``status``, because a query needs the worker that is dead.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from temporalio.api.enums.v1 import EventType, PendingActivityState
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError, RPCStatusCode

from deploy.drill.report import Kill
from deploy.embedded.stack import Stack
from workflows.calling import ASSESSED

POLL_S = 0.01  # between two looks at a pending activity: most steps last longer than that
CLOSED = (
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
)
Handle = WorkflowHandle[Any, Any]


class DrillError(RuntimeError):
    """The drill could not go on."""


class Killer:
    """Kills the worker of one stack.

    Args:
        stack: the scratch servers.
        say: called with news for people.
    """

    def __init__(self, stack: Stack, say: Callable[[str], None]) -> None:
        self._stack = stack
        self._say = say
        self._settings = stack.settings()

    async def follow(self, run: str, workflow_id: str, steps: Mapping[str, str], *, seconds: float) -> list[Kill]:
        """Kill the worker once in each step, in the order in which the run comes to them; return at the run's end.

        Args:
            run: name of the run in the report.
            workflow_id: it need not have started.
            steps: activity type by step.
            seconds: how long the whole run may take.

        Raises:
            DrillError: it did not end in time.
        """
        kills: list[Kill] = []
        try:
            async with asyncio.timeout(seconds):
                handle = await self._started(workflow_id)
                wanted = {activity: step for step, activity in steps.items()}
                async for event in handle.fetch_history_events(wait_new_event=True):
                    if event.event_type in CLOSED:
                        break
                    if event.event_type != EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                        continue
                    activity = event.activity_task_scheduled_event_attributes.activity_type.name
                    if activity in wanted:
                        kills.append(await self._kill_in(run, wanted.pop(activity), activity, handle, event))
        except TimeoutError as error:
            raise DrillError(f"{workflow_id} did not end in {seconds:.0f} s") from error
        return kills

    async def kill_waiting(self, run: str, step: str) -> Kill:
        """Kill the worker while a run waits for people; there is nothing to be done again."""
        polling = await self._kill_and_restart("worker", f"{run}: {step}, which waits for people")
        return Kill(run, step, "", "waiting", round(polling, 2), 0.0, 0)

    async def _started(self, workflow_id: str) -> Handle:
        client = await Client.connect(
            self._settings["TEMPORAL_ADDRESS"],
            namespace=self._settings.get("TEMPORAL_NAMESPACE") or "default",
            data_converter=pydantic_data_converter,
        )
        handle = client.get_workflow_handle(workflow_id)
        while True:
            try:
                await handle.describe()
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                await asyncio.sleep(POLL_S)
            else:
                return handle

    async def _kill_in(self, run: str, step: str, activity: str, handle: Handle, scheduled: HistoryEvent) -> Kill:
        identity = scheduled.activity_task_scheduled_event_attributes.activity_id
        while True:
            state = await self._pending(handle, identity)
            if state != PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED:
                break
            await asyncio.sleep(POLL_S)
        killed_at = datetime.now(UTC)
        victim = "assessor" if activity in ASSESSED else "worker"
        polling = await self._kill_and_restart(victim, f"{run}: {step}, in {activity}")
        completed, attempts = await self._completed(handle, scheduled.event_id)
        late = (completed - killed_at).total_seconds()
        return Kill(
            run=run,
            step=step,
            activity=activity,
            moment="running" if late > 0 else "just done",
            polling_s=round(polling, 2),
            done_s=round(max(0.0, late), 2),
            attempts=attempts,
        )

    async def _pending(self, handle: Handle, activity_id: str) -> int | None:
        """Return the state of an activity that has not completed; None when it has."""
        description = (await handle.describe()).raw_description
        return next((p.state for p in description.pending_activities if p.activity_id == activity_id), None)

    async def _kill_and_restart(self, victim: str, what: str) -> float:
        begun = time.monotonic()
        await asyncio.to_thread(self._stack.kill, victim, signal.SIGKILL)
        self._say(f"☠ {victim} got SIGKILL — {what}")
        await asyncio.to_thread(self._stack.restart, victim)
        seconds = time.monotonic() - begun
        self._say(f"  {victim} polls again after {seconds:.1f} s")
        return seconds

    async def _completed(self, handle: Handle, scheduled: int) -> tuple[datetime, int]:
        """Wait until the activity has ended; return when, and at which attempt."""
        attempt = 0
        async for event in handle.fetch_history_events(wait_new_event=True):
            started = event.activity_task_started_event_attributes
            if started.scheduled_event_id == scheduled:
                attempt = started.attempt
            ended = (
                event.activity_task_completed_event_attributes,
                event.activity_task_failed_event_attributes,
                event.activity_task_timed_out_event_attributes,
            )
            if any(one.scheduled_event_id == scheduled for one in ended):
                return event.event_time.ToDatetime(tzinfo=UTC), attempt
        raise DrillError(f"{handle.id} closed while an activity was under way")
