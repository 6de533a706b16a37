"""Calls an activity so that no act on it through Temporal stalls the run.

A person who reaches Temporal can complete, fail or pause an activity by hand. A result that is not of its type would
fail the workflow *task*, for ever: it is taken raw and read here; the activity is then run again, a bounded number of
times, and fails. A paused one is past every timeout of the server: a timer beside it looks, names it, and gives it up
at the end of its whole budget. A well-formed result is verified where it would decide (activities/confirm.py).
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, TypeVar, get_type_hints

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError, RetryState

from workflows.policies import READ, StepPolicy

with workflow.unsafe.imports_passed_through():
    from activities.runs import PausedActivities, PausedQuestion, RunsActivities

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")

MALFORMED: Final = "malformed-result"
"""Type of the failure of an activity whose results were no results of ours."""
PAUSED: Final = "paused"
"""Type of the failure of an activity that was paused by hand, or never came back, until its budget was spent."""

RUNS_AGAIN: Final = 2
"""How often an activity with a malformed result is run again: a person may complete it by hand each time."""

FIRST_LOOK: Final = timedelta(seconds=30)
"""After this an activity that has not come back is looked at; the pause doubles, so that a history stays small."""
LONGEST_PAUSE: Final = timedelta(minutes=30)
"""Between two looks: a watch of 24 hours is looked at about 53 times, some 500 events."""
LOOK_FOR: Final = timedelta(seconds=30)
"""The look is an activity too, which can be paused too: it is waited for so long."""


async def call(
    activity: Callable[[Any, ArgumentT], Awaitable[ResultT]],
    argument: ArgumentT,
    policy: StepPolicy,
    summary: str,
    on_paused: Callable[[str], None] | None = None,
) -> ResultT:
    """Run an activity and return its result.

    Args:
        activity: unbound activity method.
        argument: its one argument.
        policy: its timeouts and attempts; ``policy.budget`` is how long it may take in all while it is paused.
        summary: one line for the event in Temporal's UI.
        on_paused: is called, with the words for people, when the activity is found to be paused by hand.

    Raises:
        ActivityError: it failed; or its cause is an ``ApplicationError`` of type :data:`MALFORMED` or :data:`PAUSED`.
    """
    problem = ""
    for _ in range(1 + RUNS_AGAIN):
        raw = await _run(activity.__name__, argument, policy, summary, on_paused)
        try:
            return _result(activity, raw)
        except Exception as error:  # noqa: BLE001 - any error of a converter or model about foreign bytes
            workflow.logger.warning("malformed_result", extra={"activity": activity.__name__})
            problem = type(error).__name__
    message = f"{activity.__name__} was completed by hand with something that is no result of it ({problem})"
    raise _failed(activity.__name__, MALFORMED, message)


def _result(activity: Callable[[Any, Any], Awaitable[ResultT]], raw: RawValue) -> ResultT:
    hint = get_type_hints(activity)["return"]
    if hint is type(None):
        return None  # type: ignore[return-value] # an activity without a result
    found: ResultT = workflow.payload_converter().from_payload(raw.payload, hint)
    return found


async def _run(
    name: str, argument: object, policy: StepPolicy, summary: str, on_paused: Callable[[str], None] | None
) -> RawValue:
    handle: workflow.ActivityHandle[RawValue] = workflow.start_activity(
        name,
        argument,
        result_type=RawValue,
        start_to_close_timeout=policy.start_to_close,
        heartbeat_timeout=policy.heartbeat,
        retry_policy=policy.retry,
        summary=summary,
    )
    pause, spent = FIRST_LOOK, timedelta()
    try:
        while True:
            await workflow.wait([handle], timeout=pause.total_seconds())
            if handle.done():
                return handle.result()
            spent += pause
            paused = await _paused(name)
            if handle.done():
                return handle.result()
            if paused and on_paused is not None:
                on_paused(f"{name} was paused by hand: temporal activity unpause")
            if paused and spent >= policy.budget:
                handle.cancel()
                await workflow.wait([handle])
                if not handle.cancelled() and handle.exception() is None:
                    return handle.result()
                raise _failed(name, PAUSED, f"{name} was paused by hand for longer than {policy.budget}")
            pause = min(pause * 2, LONGEST_PAUSE, max(policy.budget - spent, FIRST_LOOK))
    except asyncio.CancelledError:
        handle.cancel()
        await workflow.wait([handle])
        if handle.cancelled() or handle.exception() is not None:
            raise
        return handle.result()


async def _paused(name: str) -> bool:
    """Whether an activity of this type of this run is paused; a look that does not come back counts as yes."""
    look: workflow.ActivityHandle[RawValue] = workflow.start_activity(
        RunsActivities.paused_activities.__name__,
        PausedQuestion(workflow_id=workflow.info().workflow_id, run_id=workflow.info().run_id),
        result_type=RawValue,
        start_to_close_timeout=READ.start_to_close,
        schedule_to_close_timeout=LOOK_FOR,
        summary=f"{name} has not come back: was it paused by hand",
    )
    await workflow.wait([look], timeout=LOOK_FOR.total_seconds())
    if not look.done():
        look.cancel()
        return True
    try:
        found: PausedActivities = workflow.payload_converter().from_payload(look.result().payload, PausedActivities)
    except ActivityError:
        return False  # Temporal did not answer: the next look may know
    except Exception:  # noqa: BLE001 - completed by hand, too
        return True
    return name in found.types


def _failed(name: str, code: str, message: str) -> ActivityError:
    error = ActivityError(
        message,
        scheduled_event_id=0,
        started_event_id=0,
        identity="",
        activity_type=name,
        activity_id="",
        retry_state=RetryState.NON_RETRYABLE_FAILURE,
    )
    error.__cause__ = ApplicationError(message, type=code, non_retryable=True)
    return error
