"""What Temporal's server says about runs. Temporal's client is a driver here; no workflow code is imported."""

import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client, WorkflowExecution
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode

from constitution.errors import ForbiddenError, InvalidRequestError, NotFoundError, UnavailableError

TIMEOUT = timedelta(seconds=10)
SOON = timedelta(seconds=5)  # a worker that polls has taken what is due long before
MOST = 200  # runs of one answer; more than that many in trouble at once are told by the first 200
_GUARDED = "'ConstitutionUpdate', 'ConstitutionRollback'"
_OUTCOME = SearchAttributeKey.for_keyword("ConstitutionOutcome")
_UPDATE_ID = SearchAttributeKey.for_keyword("ConstitutionUpdateId")
_PHASE = SearchAttributeKey.for_keyword("ConstitutionPhase")
_PERMANENT = frozenset({RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.UNIMPLEMENTED})
_FORBIDDEN = frozenset({RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED})


class TemporalRuns:
    """Implements ``activities.ports.Runs``.

    Args:
        client: connected, in the namespace of the runs.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def describe(self, workflow_id: str, run_id: str | None) -> dict[str, Any]:
        """Return ``{status, workflow_id, run_id, type, task_queue, close_time, outcome, …}``; no id: the latest.

        ``outcome`` is the search attribute that a run sets when it has come to an outcome by itself, else None;
        ``update_id`` and ``phase`` are search attributes too. ``reset_to`` is the run that it became when it was reset.
        ``paused`` are the types of its pending activities that were paused by hand, ``untaken`` of those that have
        waited for a worker for ``SOON``.

        Raises:
            NotFoundError: no such run, or its retention is over. UnavailableError: the server did not answer.
        """
        handle = self._client.get_workflow_handle(workflow_id, run_id=run_id)
        try:
            description = await handle.describe(rpc_timeout=TIMEOUT)
        except RPCError as error:
            raise _translated(error, workflow_id) from error
        pending = description.raw_description.pending_activities
        return _facts(description) | {
            "reset_to": description.raw_description.workflow_extended_info.reset_run_id or None,
            "paused": [one.activity_type.name for one in pending if one.paused],
            "untaken": [one.activity_type.name for one in pending if _is_untaken(one, datetime.now(UTC))],
        }

    async def event_history(self, workflow_id: str, run_id: str | None) -> bytes:
        """Return a run's history as JSON (UTF-8), the format of ``temporal workflow show -o json`` and the Replayer.

        The same history gives the same bytes: its maps come in another order with each answer.

        Raises:
            NotFoundError, UnavailableError: as for ``describe``.
        """
        handle = self._client.get_workflow_handle(workflow_id, run_id=run_id)
        try:
            return in_one_order((await handle.fetch_history(rpc_timeout=TIMEOUT)).to_json())
        except RPCError as error:
            raise _translated(error, workflow_id) from error


def in_one_order(text: str) -> bytes:
    """Return JSON with the keys of every object in order."""
    return json.dumps(json.loads(text), sort_keys=True, indent=2).encode()


class TemporalSearch:
    """Finds runs by what they say about themselves: implements ``activities.reconcile.ports.RunSearch``.

    Answers come from Temporal's visibility store, which may lag behind by some seconds; so nothing is concluded from
    them about runs that were alive within the last minute.

    Args:
        client: connected, in the namespace of the runs.
        task_queue: only runs of this deployment are found.
    """

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = task_queue

    async def carrying(self, update_id: str) -> list[dict[str, Any]]:
        """Return the updates and rollbacks of an update id, as ``TemporalRuns.describe`` does."""
        return await self._list(f"ConstitutionUpdateId = '{_plain(update_id)}'")

    async def without_outcome(self, since: datetime) -> list[dict[str, Any]]:
        """Return the updates and rollbacks that have closed since then without coming to an outcome.

        Only those with an update id. Guards have one too, and never an outcome: they are left out, or each guard would
        get a guard of its own, without end.
        """
        return await self._list(
            f"WorkflowType IN ({_GUARDED}) AND ExecutionStatus != 'Running' AND CloseTime > '{since.isoformat()}'"
            " AND ConstitutionUpdateId IS NOT NULL AND ConstitutionOutcome IS NULL"
        )

    async def in_phase(self, *phases: str) -> list[dict[str, Any]]:
        """Return the open runs in one of these phases."""
        listed = ", ".join(f"'{_plain(phase)}'" for phase in phases)
        return await self._list(f"ExecutionStatus = 'Running' AND ConstitutionPhase IN ({listed})")

    async def stalled(self) -> list[dict[str, Any]]:
        """Return the open runs whose workflow task keeps failing, as the server reports it."""
        return await self._list("ExecutionStatus = 'Running' AND TemporalReportedProblems IS NOT NULL")

    async def paused(self) -> list[dict[str, Any]]:
        """Return the open runs of which an activity was paused by hand, as the server reports it."""
        return await self._list("ExecutionStatus = 'Running' AND TemporalPauseInfo IS NOT NULL")

    async def results(self, workflow_id: str, run_id: str, activities: Collection[str]) -> list[bytes]:
        """Return the results (JSON) of a run's completed activities of these types, oldest first."""
        handle = self._client.get_workflow_handle(workflow_id, run_id=run_id)
        try:
            events = (await handle.fetch_history(rpc_timeout=TIMEOUT)).events
        except RPCError as error:
            raise _translated(error, workflow_id) from error
        asked = {
            event.event_id
            for event in events
            if event.activity_task_scheduled_event_attributes.activity_type.name in activities
        }
        done = (event.activity_task_completed_event_attributes for event in events)
        return [p.data for end in done if end.scheduled_event_id in asked for p in end.result.payloads]

    async def _list(self, condition: str) -> list[dict[str, Any]]:
        query = f"TaskQueue = '{self._task_queue}' AND {condition}"
        try:
            found = self._client.list_workflows(query, limit=MOST, rpc_timeout=TIMEOUT)
            return [_facts(run) async for run in found]
        except RPCError as error:
            raise _translated(error, "this deployment") from error


def _is_untaken(one: PendingActivityInfo, now: datetime) -> bool:
    """Whether an attempt is due, and nobody polls for it; between two attempts none is due."""
    due = [time.ToDatetime(UTC) for time in (one.scheduled_time, one.next_attempt_schedule_time) if time.seconds]
    scheduled = one.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED and not one.paused
    return scheduled and max(due, default=now) + SOON <= now


def _facts(run: WorkflowExecution) -> dict[str, Any]:
    attributes = run.typed_search_attributes
    return {
        "status": run.status.name if run.status is not None else "UNKNOWN",
        "workflow_id": run.id,
        "run_id": run.run_id,
        "type": run.workflow_type,
        "task_queue": run.task_queue,
        "close_time": run.close_time,
        "start_time": run.start_time,
        "outcome": attributes.get(_OUTCOME),
        "update_id": attributes.get(_UPDATE_ID),
        "phase": attributes.get(_PHASE),
    }


def _plain(value: str) -> str:
    """Return a value that cannot end the string it stands in."""
    if not all(c.isalnum() or c in " -_,." for c in value):
        raise InvalidRequestError(f"not something to search runs by: {value[:80]!r}")
    return value


def _translated(error: RPCError, workflow_id: str) -> Exception:
    if error.status == RPCStatusCode.NOT_FOUND:
        return NotFoundError(f"Temporal knows no run of {workflow_id!r}", hint="temporal workflow list")
    if error.status in _FORBIDDEN:
        return ForbiddenError(f"Temporal refuses the worker: {error.message}")
    if error.status in _PERMANENT:
        return InvalidRequestError(f"Temporal cannot do this: {error.message}")
    return UnavailableError(f"Temporal did not answer: {error.message}")
