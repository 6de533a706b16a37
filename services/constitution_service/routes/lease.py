"""The lease."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request, Response

from constitution.api import Lease, LeaseHolder, LeaseRelease, LeaseRequest
from constitution.errors import NotFoundError
from services.common.auth import known_by, require_scope
from services.constitution_service.releasing import lease_calls
from services.constitution_service.routes.common import ServiceContext, note_for_audit
from services.constitution_service.tables import idempotency, leases
from services.constitution_service.tables.idempotency import KeyHeader

router = APIRouter(prefix="/v1/constitution", tags=["lease"])
Client = Annotated[str, Depends(require_scope("lease:write"))]


@router.get("/lease")
async def holder(
    context: ServiceContext, client: Annotated[str | None, Depends(known_by("lease:write"))]
) -> Lease | LeaseHolder:
    """Who holds the lease, and its token for who may take it; 404 while nobody does."""
    async with context.database.connection() as connection:
        held = await leases.read(connection, context.environment, context.lease_ttl)
    if held is None:
        raise NotFoundError(f"nobody holds the lease of {context.environment}")
    return held if client is not None else LeaseHolder(**held.model_dump(exclude={"fencing_token"}))


@router.post("/lease")
async def acquire(
    context: ServiceContext, request: Request, client: Client, body: LeaseRequest, idempotency_key: KeyHeader = None
) -> Lease:
    """Take the lease and a new fencing token; 409 names the holder."""
    note_for_audit(request, body)
    key = idempotency.read_key(idempotency_key, environment=context.environment, update_id=body.update_id)
    return await lease_calls.acquire(context, body, key, client)


@router.delete("/lease", status_code=204)
async def release(
    context: ServiceContext,
    request: Request,
    client: Client,
    body: Annotated[LeaseRelease, Body()],
    idempotency_key: KeyHeader = None,
) -> Response:
    """Give the lease back; with an old token nothing happens."""
    note_for_audit(request, body)
    idempotency.read_key(idempotency_key, environment=context.environment, update_id=body.update_id)
    await lease_calls.release(context, body, client)
    return Response(status_code=204)
