"""Decisions and refusals that did not pass through this service itself."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from constitution.api import AuditEvent
from services.common.auth import require_scope
from services.constitution_service.audit import audit_events
from services.constitution_service.routes.common import ServiceContext

router = APIRouter(prefix="/v1/constitution", tags=["audit"])


@router.post("/audit", status_code=202)
async def record(
    context: ServiceContext, client: Annotated[str, Depends(require_scope("audit:write"))], event: AuditEvent
) -> Response:
    """Record an event in the audit stream; the same id again changes nothing. Kept on disk while PostgreSQL is down."""
    await audit_events.append(context, event, client)
    return Response(status_code=202)
