"""Follows runs without disturbing them: long polls while a release is under way, histories afterwards."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError, WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from constitution.messages import Status

POLL_S = 0.2
"""Between two questions to a run that waits for people. Nothing is asked while a release goes live."""


class BenchError(RuntimeError):
    """What was to be measured did not happen, so there is no number."""


@dataclass(slots=True)
class Step:
    """One activity of a history; moments are Temporal's own. ``result`` is its decoded JSON answer."""

    name: str
    scheduled: datetime
    started: datetime | None = None
    completed: datetime | None = None
    result: Any = None


@dataclass(slots=True)
class Timeline:
    """What a run's history says about time."""

    started: datetime
    closed: datetime | None = None
    steps: list[Step] = field(default_factory=list)
    children: dict[str, datetime] = field(default_factory=dict)

    def last(self, name: str) -> Step:
        """Return the last completed activity of that name.

        Raises:
            BenchError: there is none.
        """
        found = [step for step in self.steps if step.name == name and step.completed is not None]
        if not found:
            raise BenchError(f"the history has no completed {name}")
        return found[-1]

    def done(self, name: str) -> datetime:
        """Return when that activity was last recorded as completed."""
        completed = self.last(name).completed
        assert completed is not None  # noqa: S101 - `last` has chosen by it; for the type checker
        return completed


class Runs:
    """Temporal's client for synchronous code.

    Args:
        settings: the stack's settings.
    """

    def __init__(self, settings: dict[str, str]) -> None:
        self._settings = settings
        self._runner = asyncio.Runner()
        self._client: Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()

    def until(self, run: str, condition: Callable[[Status], bool], *, seconds: float) -> None:
        """Ask a run for its status until that meets a condition.

        Raises:
            BenchError: the run ended before, or the time is over.
        """
        deadline = time.monotonic() + seconds
        while not condition(status := self._runner.run(self._status(run))):
            if status.outcome is not None or time.monotonic() > deadline:
                raise BenchError(f"{run} did not get there: {status.outcome_detail or status.waiting_for}")
            time.sleep(POLL_S)

    def outcome(self, run: str, *, seconds: float) -> tuple[str, str]:
        """Wait for a run's end by long poll; return ``completed`` or the failure's type (``RolledBack``…), and why.

        Raises:
            BenchError: the time is over.
        """
        return self._runner.run(self._outcome(run, seconds))

    def decide(self, run: str, approval: dict[str, Any]) -> None:
        """Send a signed approval; return when the run has taken it."""
        self._runner.run(self._decide(run, approval))

    def terminate(self, run: str) -> None:
        """End a run without asking it."""
        self._runner.run(self._terminate(run))

    def run_id(self, run: str) -> str:
        """Return Temporal's own id of the run."""
        return self._runner.run(self._run_id(run))

    def timeline(self, run: str) -> Timeline:
        """Read the history of a run, closed or not."""
        return self._runner.run(self._timeline(run))

    def quiet(self, *, seconds: float) -> None:
        """Wait until no update, rollback or guard is open.

        Guards archive histories after a release, and would be measured with the next.

        Raises:
            BenchError: one is open after that time.
        """
        deadline = time.monotonic() + seconds
        while opened := self._runner.run(self._open()):
            if time.monotonic() > deadline:
                raise BenchError(f"still open after {seconds:.0f} s: {', '.join(opened)}")
            time.sleep(POLL_S)

    async def _connected(self) -> Client:
        if self._client is None:
            self._client = await Client.connect(
                self._settings["TEMPORAL_ADDRESS"],
                namespace=self._settings.get("TEMPORAL_NAMESPACE") or "default",
                data_converter=pydantic_data_converter,
            )
        return self._client

    async def _status(self, run: str) -> Status:
        handle = (await self._connected()).get_workflow_handle(run)
        for _ in range(25):
            try:
                status: Status = await handle.query("status", result_type=Status)
            except RPCError:  # the run's first task has not been worked on yet
                await asyncio.sleep(POLL_S)
            else:
                return status
        raise BenchError(f"{run} does not answer queries; look at the worker's log")

    async def _outcome(self, run: str, seconds: float) -> tuple[str, str]:
        handle = (await self._connected()).get_workflow_handle(run)
        try:
            async with asyncio.timeout(seconds):
                await handle.result()
        except TimeoutError as error:
            raise BenchError(f"{run} is open after {seconds:.0f} s") from error
        except WorkflowFailureError as error:
            cause = error.cause
            return (str(cause.type) if isinstance(cause, ApplicationError) else type(cause).__name__), str(cause)
        return "completed", ""

    async def _decide(self, run: str, approval: dict[str, Any]) -> None:
        handle = (await self._connected()).get_workflow_handle(run)
        await handle.execute_update("decide", {"approval": approval})

    async def _terminate(self, run: str) -> None:
        await (await self._connected()).get_workflow_handle(run).terminate("its update was taken live without it")

    async def _run_id(self, run: str) -> str:
        return (await (await self._connected()).get_workflow_handle(run).describe()).run_id

    async def _open(self) -> list[str]:
        client = await self._connected()
        # Reconciliation comes and goes by its schedule, also on a fleet where nothing happens.
        query = "ExecutionStatus = 'Running' AND WorkflowType != 'ConstitutionReconcile'"
        return [run.id async for run in client.list_workflows(query)]

    async def _timeline(self, run: str) -> Timeline:
        client = await self._connected()
        return await _read(client, await client.get_workflow_handle(run).fetch_history())


async def _read(client: Client, history: WorkflowHistory) -> Timeline:
    events = history.events
    timeline = Timeline(started=_time(events[0]))
    by_id: dict[int, Step] = {}
    for event in events:
        match event.event_type:
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                name = event.activity_task_scheduled_event_attributes.activity_type.name
                by_id[event.event_id] = Step(name, _time(event))
            case EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                by_id[event.activity_task_started_event_attributes.scheduled_event_id].started = _time(event)
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                ended = event.activity_task_completed_event_attributes
                step = by_id[ended.scheduled_event_id]
                step.completed = _time(event)
                decoded = await client.data_converter.decode(list(ended.result.payloads))
                step.result = decoded[0] if decoded else None
            case EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED:
                child = event.child_workflow_execution_started_event_attributes
                timeline.children[child.workflow_type.name] = _time(event)
    timeline.steps = list(by_id.values())
    timeline.closed = _time(events[-1])
    return timeline


def _time(event: Any) -> datetime:
    moment: datetime = event.event_time.ToDatetime(tzinfo=UTC)
    return moment
