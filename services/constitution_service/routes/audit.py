"""Decisions and refusals that did not pass through this service itself."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from constitution.api import AuditEvent
from constitution.errors import NotFoundError
from constitution.release import Envelope
from services.common.auth import require_scope
from services.constitution_service.audit import audit_events
from services.constitution_service.routes.common import ServiceContext
from services.constitution_service.tables import audit_chain

router = APIRouter(prefix="/v1/constitution", tags=["audit"])


@router.post("/audit", status_code=202)
async def record(
    context: ServiceContext, client: Annotated[str, Depends(require_scope("audit:write"))], event: AuditEvent
) -> Response:
    """Record an event in the audit stream; the same id again changes nothing. Kept on disk while PostgreSQL is down."""
    await audit_events.append(context, event, client)
    return Response(status_code=202)


@router.get("/audit/head")
async def head(context: ServiceContext) -> Envelope:
    """How far the audit stream reaches: the newest event's number and checksum, signed."""
    async with context.database.connection() as connection:
        found = await audit_chain.newest_head(connection, context.environment)
    if found is None:
        raise NotFoundError("no audit event has been sent yet", hint="constitution doctor")
    return found.envelope
