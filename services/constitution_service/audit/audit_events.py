"""Audit events: every decision and every refusal, as OCSF, through the same outbox as the releases.

A decision's event commits with the decision. A refusal's event, and one that a client reports, is written at once, or
to the spool while PostgreSQL is down (refusals.py, drain.py).
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import structlog
from pydantic import AwareDatetime

from adapters.postgres import Connection
from constitution.api import AuditEvent, WorkflowRef
from constitution.errors import Issue, UnavailableError
from constitution.events import ocsf_event
from constitution.model import Model
from services.common.problems import UnreadableRequestError
from services.constitution_service.context import Context
from services.constitution_service.tables import outbox
from services.constitution_service.tables.clock import now_of

NO_WORKFLOW = WorkflowRef(workflow_id="", run_id="")
AUDIT_TYPE = "constitution.audit.v1"
MAX_ID = 256  # characters; it is a key in an index

_log = structlog.get_logger(__name__)


class SpooledEvent(Model):
    """An event that waits on disk, with the time when it happened."""

    event: AuditEvent
    time: AwareDatetime


async def decision(
    connection: Connection,
    context: Context,
    *,
    activity: str,
    actor: str,
    message: str,
    details: Mapping[str, Any],
    update_id: str = "",
    workflow: WorkflowRef = NO_WORKFLOW,
    success: bool = True,
) -> None:
    """Add the event of a decision to the caller's transaction."""
    event = AuditEvent(
        id=str(uuid4()),
        update_id=update_id,
        workflow=workflow,
        activity=activity,
        success=success,
        actor=actor,
        message=message,
        details=dict(details),
    )
    await enqueue(connection, context, event, await now_of(connection))


async def enqueue(connection: Connection, context: Context, event: AuditEvent, time: datetime) -> None:
    """Add an event to the outbox; the same id again changes nothing."""
    await outbox.add(
        connection,
        context.environment,
        "audit",
        event_id=event.id,
        key=context.environment,
        headers={
            "ce_specversion": "1.0",
            "ce_id": event.id,
            "ce_type": AUDIT_TYPE,
            "ce_source": f"/constitution-service/{context.environment}",
            "ce_time": time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "content-type": "application/json",
        },
        value=json.dumps(ocsf_event(event, environment=context.environment, time=time), ensure_ascii=False),
    )


async def append(context: Context, event: AuditEvent, client: str) -> None:
    """Append an event that a client reports; on disk while PostgreSQL is down.

    Raises:
        UnreadableRequestError: the id is empty or too long.
        UnavailableError: PostgreSQL is down and the spool is full.
    """
    if not 0 < len(event.id) <= MAX_ID:
        raise UnreadableRequestError(
            "the event's id cannot be used",
            issues=[Issue(code="id", path="/id", message=f"an id has 1 to {MAX_ID} characters")],
        )
    told = event.model_copy(
        # The actor of a client's report is the client; a person is named where the service verified their signature.
        update={"actor": client, "details": {**event.details, "reported_by": client}}
    )
    if not await write(context, told):
        raise UnavailableError("the audit event could be written neither to PostgreSQL nor to the spool")


async def write(context: Context, event: AuditEvent) -> bool:
    """Write an event in a transaction of its own, or to the spool; False if neither took it."""
    try:
        async with context.database.transaction() as connection:
            await enqueue(connection, context, event, await now_of(connection))
    except UnavailableError as error:
        _log.warning("audit_spooled", event_id=event.id, reason=error.message)
        return _spool(context, event)
    return True


def _spool(context: Context, event: AuditEvent) -> bool:
    try:
        kept = context.spool.put(SpooledEvent(event=event, time=datetime.now(UTC)).model_dump_json())
    except OSError as error:
        _log.error("audit_spool_failed", event_id=event.id, reason=str(error))
        kept = False
    if not kept:
        context.metrics.dropped.inc()
        _log.error("audit_event_lost", event_id=event.id, activity=event.activity)
    context.metrics.spooled.set(len(context.spool))
    return kept
