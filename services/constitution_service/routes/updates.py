"""Updates: where each is, and what ends it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request

from constitution.api import CloseRequest, DecidedRequest, DenialRecord, OrderRecord, OrderRequest, UpdateRecord
from constitution.messages import ChangeRequestId
from constitution.release import Envelope, UpdateId
from services.common.auth import require_scope
from services.constitution_service.releasing import order_calls, update_calls
from services.constitution_service.routes.common import ServiceContext, note_for_audit

router = APIRouter(prefix="/v1/constitution", tags=["updates"])
Client = Annotated[str, Depends(require_scope("lease:write"))]
UpdatePath = Annotated[UpdateId, Path(description="a lower-case UUID")]


@router.get("/updates/{update_id}")
async def update(context: ServiceContext, update_id: UpdatePath) -> UpdateRecord:
    """Every step that an update took."""
    return await update_calls.one(context, update_id)


@router.post("/updates/{update_id}/decided")
async def decided(
    context: ServiceContext, request: Request, client: Client, update_id: UpdatePath, body: DecidedRequest
) -> UpdateRecord:
    """Note that the board has decided: from now on no deadline of the board's ends the update."""
    note_for_audit(request, body, update_id=update_id)
    return await update_calls.decide(context, update_id, body, client)


@router.post("/updates/{update_id}/abort")
async def abort(
    context: ServiceContext, request: Request, client: Client, update_id: UpdatePath, body: CloseRequest
) -> UpdateRecord:
    """End an update that is not live; stopping is always safe."""
    note_for_audit(request, body, update_id=update_id)
    return await update_calls.abort(context, update_id, body, client)


@router.post("/updates/{update_id}/expire")
async def expire(
    context: ServiceContext, request: Request, client: Client, update_id: UpdatePath, body: CloseRequest
) -> UpdateRecord:
    """End an undecided update whose deadline has passed by the service's clock."""
    note_for_audit(request, body, update_id=update_id)
    return await update_calls.expire(context, update_id, body, client)


@router.post("/orders")
async def order(context: ServiceContext, request: Request, client: Client, body: OrderRequest) -> OrderRecord:
    """Accept what a person orders a run to do, once: by signature, or unsigned where environment.toml allows it."""
    note_for_audit(request, body, update_id=body.update_id)
    return await order_calls.accept(context, body, client)


@router.post("/change-requests/{identity}/denial")
async def denial(
    context: ServiceContext,
    request: Request,
    client: Client,
    identity: Annotated[ChangeRequestId, Path(description="e.g. CR-142")],
    envelope: Envelope,
) -> DenialRecord:
    """Close a change request for ever, on a board member's signed denial."""
    request.state.subject = {"change_request": identity}
    return await update_calls.deny(context, identity, envelope, client)
