"""The receipt of a release: sealed once, read by anybody."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from constitution.receipt import ReceiptDocuments, ReceiptRequest, SealedReceipt
from services.common.auth import require_scope
from services.constitution_service.releasing import receipts
from services.constitution_service.routes.common import Generation, ServiceContext

router = APIRouter(prefix="/v1/constitution/releases/{generation}/receipt", tags=["receipts"])


@router.get("")
async def sealed(context: ServiceContext, generation: Generation) -> SealedReceipt:
    """The receipt of a release, and the manifest that it names."""
    return await receipts.one(context, generation)


@router.get("/documents")
async def documents(context: ServiceContext, generation: Generation) -> ReceiptDocuments:
    """The attestations and signed orders that the receipt names, or will name."""
    return await receipts.documents(context, generation)


@router.post("")
async def seal(
    context: ServiceContext,
    request: Request,
    client: Annotated[str, Depends(require_scope("audit:write"))],
    generation: Generation,
    body: ReceiptRequest,
) -> SealedReceipt:
    """Seal the receipt of a release, once. The same files again: the same receipt; other files: 409."""
    request.state.subject = {"generation": generation}
    return await receipts.seal(context, generation, body, client)
