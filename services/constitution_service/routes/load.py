"""Load and standing: the calls that change which constitution is live, and its standing."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from constitution.api import LoadRequest, LoadResult, StandingRequest
from constitution.errors import ConstitutionError
from constitution.release import Release
from services.common.auth import require_scope
from services.constitution_service.releasing import loading, standings
from services.constitution_service.routes.common import Generation, ServiceContext, note_for_audit
from services.constitution_service.tables import idempotency
from services.constitution_service.tables.idempotency import KeyHeader

router = APIRouter(prefix="/v1/constitution", tags=["releases"])


@router.post("/load")
async def load(
    context: ServiceContext,
    request: Request,
    client: Annotated[str, Depends(require_scope("load:write"))],
    body: LoadRequest,
    idempotency_key: KeyHeader = None,
) -> LoadResult:
    """Put an artifact live in rings; signatures, approvals and evidence are checked here, in the transaction."""
    note_for_audit(request, body)
    key = idempotency.read_key(idempotency_key, environment=context.environment, update_id=body.update_id)
    try:
        result = await loading.load(context, body, key, client)
    except ConstitutionError as error:
        context.metrics.loads.labels(body.kind.value, error.code).inc()
        raise
    context.metrics.loads.labels(body.kind.value, "ok").inc()
    return result


@router.post("/releases/{generation}/standing")
async def standing(
    context: ServiceContext,
    request: Request,
    client: Annotated[str, Depends(require_scope("standing:write"))],
    generation: Generation,
    body: StandingRequest,
    *,
    idempotency_key: KeyHeader = None,
) -> Release:
    """Append what became of a release."""
    note_for_audit(request, body, generation=generation)
    key = idempotency.read_key(idempotency_key, environment=context.environment, update_id=body.update_id)
    return await standings.append(context, generation, body, key, client)
