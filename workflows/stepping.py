"""Runs one step of the runbook as one activity, visibly: retry, a person, abort, deadline.

A step ends in one of three ways: a result; :class:`StepFailedError` (a permanent refusal, or spent retries past the
deadline); :class:`StepInterruptedError` (somebody said abort, or cancelled the run). None of them leaves the workflow
package: ``update.py`` and ``rollback.py`` turn them into an outcome.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from temporalio import exceptions as temporal
from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, TimeoutType

from constitution.messages import Phase
from workflows import policies
from workflows.calling import call
from workflows.policies import StepPolicy
from workflows.status import Journal, clipped, command

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")

SKIPPED: Final = "skipped"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed, unwrapped: an ActivityError's own text says nothing."""

    code: str
    message: str
    permanent: bool


class StepFailedError(Exception):
    """A step failed for good; ``failure`` says why."""

    def __init__(self, step: str, failure: Failure) -> None:
        super().__init__(f"{step}: {failure.message}")
        self.step = step
        self.failure = failure


class StepSkippedError(Exception):
    """A person skipped the step, with a signed order."""


class StepInterruptedError(Exception):
    """The run was told to stop while it waited or worked; ``reason`` says by whom and why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def explain(error: BaseException) -> Failure:
    """Return the root cause of a failed activity or child in words, and whether a retry could help."""
    cause: BaseException = error
    while isinstance(cause, FailureError) and cause.cause is not None and not isinstance(cause, ApplicationError):
        cause = cause.cause
    if isinstance(cause, ApplicationError):
        return Failure(cause.type or "unexpected", cause.message, cause.non_retryable)
    if isinstance(cause, temporal.TimeoutError):
        kind = TimeoutType(cause.type).name.lower().replace("_", "-") if cause.type is not None else "timeout"
        return Failure("timeout", f"no answer in time ({kind})", permanent=False)
    return Failure(type(cause).__name__, str(cause) or type(cause).__name__, permanent=False)


class Stepper:
    """Runs steps of one run.

    Args:
        journal: where each step becomes visible.
        interrupted: returns why the run must stop, or None; asked at every boundary and during every wait.
    """

    def __init__(self, journal: Journal, interrupted: Callable[[], str | None]) -> None:
        self._journal = journal
        self._interrupted = interrupted
        self._retries = 0
        self._skips: dict[str, str] = {}
        self._shown_waiting = ""
        self.person_deadline = timedelta(hours=1)
        self.persistent_phase = Phase.RECORDS_PENDING

    def retry(self) -> None:
        """Try the stuck step again (message ``retry``)."""
        self._retries += 1

    def skip(self, step: str, by: str) -> None:
        """Go on without ``step`` (message ``skip``, its order verified)."""
        self._skips[step] = by

    def check(self) -> None:
        """Raise StepInterruptedError if the run must stop."""
        reason = self._interrupted()
        if reason is not None:
            raise StepInterruptedError(reason)

    async def run(
        self,
        step: str,
        activity: Callable[[Any, ArgumentT], Awaitable[ResultT]],
        argument: ArgumentT,
        policy: StepPolicy,
        *,
        summary: str,
        persistent: bool = False,
        until: Callable[[], bool] | None = None,
        manages_state: bool = True,
        deadline: timedelta | None = None,
        raises: frozenset[str] = frozenset(),
    ) -> ResultT:
        """Run one activity of a step until it succeeds, fails for good, or is interrupted.

        Args:
            step: the runbook's step it belongs to.
            activity: unbound activity method.
            argument: its one argument.
            policy: its timeouts and attempts.
            summary: one line for the event in Temporal's UI.
            persistent: after the point of no return, or in a rollback: spent attempts begin anew after a pause,
                visibly, and nothing interrupts but a signed skip.
            until: ends the activity early when true (a promote during a watch): raises StepSkippedError.
            manages_state: whether success marks the step done (False for the first of two activities of a step).
            deadline: how long a persistent step may go on; None: for ever, visibly.
            raises: codes of permanent failures that end even a persistent step.

        Raises:
            StepFailedError: permanent, or spent and no retry before the deadline for a person.
            StepInterruptedError: abort or cancel (never when persistent).
            StepSkippedError: skipped by signed order, or ``until`` became true.
        """
        if not persistent:
            self.check()
        phase = self._journal.status.phase
        pause = policies.PERSISTENT_PAUSE
        give_up = workflow.now() + deadline if deadline is not None else None
        self._journal.step(step, "running")
        while True:
            try:
                value: ResultT = await self._attempt(
                    activity, argument, policy, summary=summary, persistent=persistent, until=until
                )
            except ActivityError as error:
                failure = explain(error)
            else:
                self._show_waiting("")
                if manages_state:
                    self._journal.step(step, "done")
                return value
            self._journal.step(step, "failed", error=failure.message)
            if failure.code in raises or (give_up is not None and workflow.now() >= give_up):
                raise StepFailedError(step, failure)
            if not persistent:
                if failure.permanent or not await self._ask_a_person(step, failure):
                    raise StepFailedError(step, failure)
            else:
                await self.pause(step, failure, pause)
                pause = min(pause * 2, policies.PERSISTENT_PAUSE_MAX)
            self._journal.going_on(step, phase)

    async def _attempt(
        self,
        activity: Callable[[Any, ArgumentT], Awaitable[ResultT]],
        argument: ArgumentT,
        policy: StepPolicy,
        *,
        summary: str,
        persistent: bool,
        until: Callable[[], bool] | None,
    ) -> ResultT:
        running: asyncio.Task[ResultT] = asyncio.create_task(
            call(activity, argument, policy, summary, on_waiting=self._show_waiting), name=summary
        )

        def wanted() -> bool:
            stop = not persistent and self._interrupted() is not None
            return running.done() or stop or (until is not None and until())

        await workflow.wait_condition(wanted)
        if running.done():
            return running.result()
        # TRY_CANCEL: the step may still be running, or run later. The lease token fences its late acts.
        running.cancel()
        await workflow.wait([running])
        if not running.cancelled() and running.exception() is None:
            return running.result()
        self.check()
        raise StepSkippedError(summary)

    def _show_waiting(self, said: str) -> None:
        """Name what an activity waits for where people look; what the run waits for beside it stays said."""
        shown, status = self._shown_waiting, self._journal.status
        if status.step is None or status.waiting_for not in ("", shown) or said == status.waiting_for:
            return
        self._shown_waiting = said
        self._journal.set(waiting_for=said, next_command=command("abort", "--reason …") if said else "")

    async def wait(
        self, step: str, condition: Callable[[], bool], *, for_: str, next_command: str, deadline: timedelta | None
    ) -> bool:
        """Wait visibly until ``condition``; return False when the deadline passes first.

        Raises:
            StepInterruptedError: abort or cancel.
        """
        phase = self._journal.status.phase
        self._journal.waiting(step, for_, next_command)
        try:
            await workflow.wait_condition(
                lambda: condition() or self._interrupted() is not None,
                timeout=deadline,
                timeout_summary=clipped(for_, 100),
            )
        except TimeoutError:
            self._journal.going_on(step, phase)
            return False
        self.check()
        self._journal.going_on(step, phase)
        return True

    async def ask(self, step: str, failure: Failure) -> bool:
        """Ask a person what to do about a failure; True: try again, False: nobody answered before the deadline.

        Raises:
            StepInterruptedError: abort or cancel.
        """
        phase = self._journal.status.phase
        again = await self._ask_a_person(step, failure)
        if again:
            self._journal.going_on(step, phase)
        return again

    async def _ask_a_person(self, step: str, failure: Failure) -> bool:
        retries = self._retries
        self._journal.waiting(
            step,
            f"a person: {step} failed ({failure.message}); without an answer the run gives up at "
            f"{(workflow.now() + self.person_deadline).isoformat(timespec='seconds')}",
            command("retry"),
            Phase.NEEDS_A_PERSON,
        )
        try:
            await workflow.wait_condition(
                lambda: self._retries > retries or self._interrupted() is not None,
                timeout=self.person_deadline,
                timeout_summary=f"{step} needs a person",
            )
        except TimeoutError:
            return False
        self.check()
        return True

    async def pause(self, step: str, failure: Failure, pause: timedelta) -> None:
        """Wait visibly before a failed step is tried again, or until somebody says retry.

        Raises:
            StepSkippedError: skipped by signed order.
        """
        retries = self._retries
        self._journal.waiting(
            step,
            f"{step} to succeed ({failure.message}); tried again every {int(pause.total_seconds())} s",
            command("retry"),
            Phase.NEEDS_A_PERSON if failure.permanent else self.persistent_phase,
        )
        try:
            await workflow.wait_condition(
                lambda: self._retries > retries or step in self._skips, timeout=pause, timeout_summary=f"retry {step}"
            )
        except TimeoutError:
            return
        if step in self._skips:
            by = self._skips.pop(step)
            self._journal.step(step, "skipped", detail=f"skipped by {by}")
            raise StepSkippedError(step)
