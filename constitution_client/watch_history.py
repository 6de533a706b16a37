"""Finds the evidence of a run's watch in the run's history: open or closed, with or without a worker."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.service import RPCError, RPCStatusCode

from constitution.errors import NotFoundError, NotYetError, UnavailableError
from constitution_client.temporal import connect

ACTIVITY = "watch_metric"


async def evidence_of(workflow_id: str, variables: Mapping[str, str]) -> str:
    """Return the digest of the evidence of a run's last watch that ended.

    Args:
        workflow_id: of the update.
        variables: what ``temporalio.envconfig`` reads.

    Raises:
        NotFoundError: no such run, or it watched nothing, or its watch kept no evidence.
        NotYetError: the run is open, and its watch has not ended.
        UnavailableError: Temporal does not answer.
    """
    closed, reports = await _reports(workflow_id, variables)
    kept = [str(report["evidence"]) for report in reports if isinstance(report, dict) and report.get("evidence")]
    if kept:
        return kept[-1]
    if not closed and not reports:
        raise NotYetError(
            f"the watch of {workflow_id} has not ended", hint=f"constitution watch {shlex.quote(workflow_id)}"
        )
    why = f"its watch said {reports[-1].get('verdict')}: {reports[-1].get('detail')}" if reports else "it had no watch"
    raise NotFoundError(
        f"{workflow_id} kept no evidence of a watch: {why}", hint=f"constitution status {shlex.quote(workflow_id)}"
    )


async def _reports(workflow_id: str, variables: Mapping[str, str]) -> tuple[bool, list[Any]]:
    """Return whether the run has closed, and the reports of its watches, oldest first."""
    client = await connect(variables)
    watches: set[int] = set()
    reports: list[Any] = []
    closed = False
    try:
        async for event in client.get_workflow_handle(workflow_id).fetch_history_events():
            scheduled = event.activity_task_scheduled_event_attributes
            completed = event.activity_task_completed_event_attributes
            if scheduled.activity_type.name == ACTIVITY:
                watches.add(event.event_id)
            elif completed.scheduled_event_id in watches and completed.result.payloads:
                reports.append(json.loads(completed.result.payloads[0].data))
            closed = event.event_type in _ENDS
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            raise NotFoundError(
                f"Temporal has no such run: {workflow_id}",
                hint="the archive keeps its evidence: show the file evidence/watch-….json of its folder with --file",
            ) from error
        raise UnavailableError(
            f"Temporal cannot serve {workflow_id} now: {error.message}", hint="make status"
        ) from error
    except ValueError as error:
        raise UnavailableError(f"the history of {workflow_id} cannot be read: {error}") from error
    return closed, reports


_ENDS = frozenset(
    {
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
    }
)
