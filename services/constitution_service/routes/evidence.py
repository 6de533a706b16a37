"""Evidence of the regression gate and its attachments."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from constitution.api import EvidenceRecord
from constitution.errors import InvalidRequestError
from services.common.auth import require_scope
from services.constitution_service.artifacts import evidence
from services.constitution_service.routes.common import ChecksumPath, ServiceContext

router = APIRouter(prefix="/v1/constitution", tags=["evidence"])
Client = Annotated[str, Depends(require_scope("evidence:write"))]


@router.post("/evidence", status_code=201)
async def put_evidence(context: ServiceContext, client: Client, record: EvidenceRecord) -> dict[str, str]:
    """Store evidence under the checksum of its canonical bytes (RFC 8785)."""
    return {"digest": await evidence.put(context, record, client)}


@router.get("/evidence/{checksum}")
async def get_evidence(context: ServiceContext, checksum: ChecksumPath) -> EvidenceRecord:
    """Stored evidence."""
    async with context.database.connection() as connection:
        return await evidence.get(connection, context.environment, checksum)


@router.post(
    "/blobs",
    status_code=201,
    dependencies=[Depends(require_scope("evidence:write"))],
    openapi_extra={"requestBody": {"content": {"application/octet-stream": {}}, "required": True}},
)
async def put_blob(context: ServiceContext, request: Request) -> dict[str, str]:
    """Store an attachment (raw bytes) under its checksum."""
    data = await request.body()
    if not data:
        raise InvalidRequestError("an empty body is no attachment")
    return {"digest": await evidence.put_blob(context, data)}


@router.get("/blobs/{checksum}", response_class=Response)
async def get_blob(context: ServiceContext, checksum: ChecksumPath) -> Response:
    """An attachment's exact bytes."""
    return Response(await evidence.get_blob(context, checksum), media_type="application/octet-stream")
