"""Follows runs by Temporal's own client and the runs' live status."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from constitution.messages import Outcome, Status, StepStatus
from deploy.demo.screen import Screen

POLL_S = 0.05
"""Between two looks at a run."""


class StoryError(RuntimeError):
    """The story did not go as it must: a run waits where it should not, or ended otherwise."""


class Runs:
    """Looks at runs from synchronous code; one client, one event loop.

    Args:
        screen: where each step is shown as it happens.
        settings: the stack's settings.
    """

    def __init__(self, screen: Screen, settings: dict[str, str]) -> None:
        self._screen = screen
        self._settings = settings
        self._runner = asyncio.Runner()
        self._client: Client | None = None
        self._shown: dict[tuple[str, str, str], str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()

    def until(self, run: str, condition: Callable[[Status], bool], *, seconds: float) -> Status:
        """Follow a run, showing its steps, until its status meets a condition.

        Raises:
            StoryError: the run closed, or the deadline passed, before that.
        """
        deadline = time.monotonic() + seconds
        while True:
            status = self._runner.run(self._status(run))
            self._show(run, status, indent="  ")
            if status.rollback_workflow is not None:
                undo = self._runner.run(self._undo(status.rollback_workflow))
                if undo is not None:
                    self._show(status.rollback_workflow, undo, indent="      ")
            if condition(status):
                return status
            if status.outcome is not None:
                raise StoryError(f"{run} ended before its time: {status.outcome_detail}")
            if time.monotonic() > deadline:
                raise StoryError(f"{run} did not get there in {seconds:.0f} s; it waits for: {status.waiting_for}")
            time.sleep(POLL_S)

    def end(self, run: str, *, seconds: float) -> tuple[Outcome, Status]:
        """Follow a run to its end; return what Temporal says became of it, and its last status.

        Raises:
            StoryError: it did not end in time, or in no outcome of ours.
        """
        status = self.until(run, lambda s: s.outcome is not None, seconds=seconds)
        return self._runner.run(self._outcome(run)), status

    async def _handle(self, run: str) -> "WorkflowHandle[object, object]":
        if self._client is None:
            self._client = await Client.connect(
                self._settings["TEMPORAL_ADDRESS"],
                namespace=self._settings.get("TEMPORAL_NAMESPACE") or "default",
                data_converter=pydantic_data_converter,
            )
        return self._client.get_workflow_handle(run)

    async def _status(self, run: str) -> Status:
        handle = await self._handle(run)
        for _ in range(5):
            try:
                status: Status = await handle.query("status", result_type=Status)
            except RPCError:  # the worker is busy starting or finishing a task of this run
                await asyncio.sleep(POLL_S)
            else:
                return status
        raise StoryError(f"{run} does not answer queries; look at the worker's log")

    async def _outcome(self, run: str) -> Outcome:
        handle = await self._handle(run)
        try:
            await handle.result()
        except WorkflowFailureError as error:
            kind = error.cause.type if isinstance(error.cause, ApplicationError) else None
            known = {"RolledBack": Outcome.ROLLED_BACK, "Rejected": Outcome.REJECTED}
            if kind not in known:
                raise StoryError(f"{run} ended in no outcome of ours: {error.cause}") from error
            return known[kind]
        status = (await handle.describe()).status
        if status is not WorkflowExecutionStatus.COMPLETED:
            raise StoryError(f"{run} ended as {status}")
        return Outcome.COMPLETED

    def quiet(self, *, seconds: float) -> None:
        """Wait until no run is open: the guards have archived the histories.

        Raises:
            StoryError: one is open after that time; it is named.
        """
        deadline = time.monotonic() + seconds
        while opened := self._runner.run(self._open()):
            if time.monotonic() > deadline:
                raise StoryError(f"still open after {seconds:.0f} s: {', '.join(opened)}")
            time.sleep(0.2)

    async def _open(self) -> list[str]:
        await self._handle("")
        if self._client is None:
            return []
        return [run.id async for run in self._client.list_workflows('ExecutionStatus = "Running"')]

    async def _undo(self, run: str) -> Status | None:
        """Return the status of a rollback; None in the moment before it has started."""
        try:
            status: Status = await (await self._handle(run)).query("status", result_type=Status)
        except RPCError:
            return None
        return status

    def _show(self, run: str, status: Status, *, indent: str) -> None:
        for step in status.steps:
            key = (run, step.name, step.state)
            if step.state in ("pending", "running") or self._shown.get(key) == step.detail:
                continue
            self._shown[key] = step.detail
            detail = (step.detail or step.last_error or "").splitlines()
            self._screen.say(f"{indent}{_mark(step)} {step.name:<10} {detail[0] if detail else ''}"[:200])


def _mark(step: StepStatus) -> str:
    return {"done": "✓", "failed": "✗", "waiting": "…", "skipped": "→", "undone": "↩"}.get(step.state, "·")
