"""Calls an activity so that no act on it through Temporal stalls the run.

Whoever reaches Temporal can complete, fail or pause an activity by hand. A result that is not of its type would fail
the workflow *task*, for ever: it is taken raw and read here; the activity is then run again, a bounded number of times,
and fails. A paused one is past every timeout of the server, and so is one that no worker takes, as when the assessor is
away: a timer beside it looks, names it, and gives it up at the end of its whole budget. What a well-formed result
claims decides nothing: an assessor signs what counts (activities/attesting.py).
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, TypeVar, get_type_hints

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError, RetryState

from constitution.names import ASSESSOR, RUNBOOK
from workflows.policies import READ, StepPolicy

with workflow.unsafe.imports_passed_through():
    from activities.expected_change import ExpectedChange
    from activities.gate import Gate
    from activities.runs import PendingActivities, PendingQuestion, RunsActivities
    from activities.sync import Sync
    from activities.watch.watch import Watch

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")

MALFORMED: Final = "malformed-result"
"""Type of the failure of an activity whose results were no results of ours."""
PAUSED: Final = "paused"
"""Type of the failure of an activity that was paused by hand, or never came back, until its budget was spent."""

UNTAKEN: Final = "assessor-away"
"""Type of the failure of an activity that no assessor took until its budget was spent."""

ASSESSED: Final = frozenset(
    method.__name__
    for method in (
        Gate.run_regression_gate,
        ExpectedChange.predict_shift,
        Watch.check_watch,
        Watch.watch_metric,
        Sync.sync_targets,
    )
)
"""What the assessor runs, on its own task queue, and no other worker."""

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
    on_waiting: Callable[[str], None] | None = None,
) -> ResultT:
    """Run an activity and return its result.

    Args:
        activity: unbound activity method.
        argument: its one argument.
        policy: its timeouts and attempts; ``policy.budget`` is how long it may take in all while it is paused or waits
            for the assessor.
        summary: one line for the event in Temporal's UI.
        on_waiting: is told, in words, when the activity is found to be paused by hand, or not to be taken by the
            assessor; and nothing (``""``) when it goes on.

    Raises:
        ActivityError: it failed; or its cause is an ``ApplicationError`` of type :data:`MALFORMED`, :data:`PAUSED` or
            :data:`UNTAKEN`.
    """
    problem = ""
    for _ in range(1 + RUNS_AGAIN):
        raw = await _run(activity.__name__, argument, policy, summary, on_waiting)
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
    name: str, argument: object, policy: StepPolicy, summary: str, on_waiting: Callable[[str], None] | None
) -> RawValue:
    handle: workflow.ActivityHandle[RawValue] = workflow.start_activity(
        name,
        argument,
        task_queue=_queue(name),
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
            stuck, why = await _stuck(name)
            if handle.done():
                return handle.result()
            if on_waiting is not None:
                on_waiting(_WORDS[stuck].format(name=name, queue=_queue(name)) if stuck else "")
            if stuck and spent >= policy.budget:
                handle.cancel()
                await workflow.wait([handle])
                if not handle.cancelled() and handle.exception() is None:
                    return handle.result()
                raise _failed(name, stuck, f"{name} {why} for longer than {policy.budget}")
            pause = min(pause * 2, LONGEST_PAUSE, max(policy.budget - spent, FIRST_LOOK))
    except asyncio.CancelledError:
        handle.cancel()
        await workflow.wait([handle])
        if handle.cancelled() or handle.exception() is not None:
            raise
        return handle.result()


_WORDS: Final = {
    PAUSED: "{name} was paused by hand: temporal activity unpause",
    UNTAKEN: "the assessor: it does not take {name} from the task queue {queue}; is the process assessor running?",
}


def _queue(name: str) -> str:
    """The task queue of an activity: this run's own, or the assessor's beside it."""
    own = workflow.info().task_queue
    return own.removesuffix(RUNBOOK) + ASSESSOR if name in ASSESSED else own


async def _stuck(name: str) -> tuple[str, str]:
    """Why an activity of this type of this run does not go on, as a failure's type and in words; or nothing.

    A look that does not come back counts as paused.
    """
    paused, nothing = (PAUSED, "was paused by hand"), ("", "")
    look: workflow.ActivityHandle[RawValue] = workflow.start_activity(
        RunsActivities.pending_activities.__name__,
        PendingQuestion(workflow_id=workflow.info().workflow_id, run_id=workflow.info().run_id),
        result_type=RawValue,
        start_to_close_timeout=READ.start_to_close,
        schedule_to_close_timeout=LOOK_FOR,
        summary=f"{name} has not come back: was it paused by hand, or taken by nobody",
    )
    await workflow.wait([look], timeout=LOOK_FOR.total_seconds())
    if not look.done():
        look.cancel()
        return paused
    try:
        found: PendingActivities = workflow.payload_converter().from_payload(look.result().payload, PendingActivities)
    except ActivityError:
        return nothing  # Temporal did not answer: the next look may know
    except Exception:  # noqa: BLE001 - completed by hand, too
        return paused
    if name in found.paused:
        return paused
    if name in ASSESSED and name in found.untaken:
        return UNTAKEN, "was taken by no assessor"
    return nothing


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
