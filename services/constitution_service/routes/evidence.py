"""Evidence of the regression gate, its attachments, and what an assessor signed about what it saw."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from constitution.api import EvidenceRecord
from constitution.checksum import Checksum
from constitution.errors import InvalidRequestError
from constitution.release import Envelope
from services.common.auth import require_scope
from services.constitution_service.artifacts import attestations
from services.constitution_service.artifacts import evidence as records
from services.constitution_service.routes.common import MAX_GENERATION, ChecksumPath, ServiceContext

router = APIRouter(prefix="/v1/constitution", tags=["evidence"])
Client = Annotated[str, Depends(require_scope("evidence:write"))]


@router.post("/evidence", status_code=201)
async def put_evidence(context: ServiceContext, client: Client, record: EvidenceRecord) -> dict[str, str]:
    """Store evidence under the checksum of its canonical bytes (RFC 8785)."""
    return {"digest": await records.put(context, record, client)}


@router.get("/evidence/{checksum}")
async def get_evidence(context: ServiceContext, checksum: ChecksumPath) -> EvidenceRecord:
    """Stored evidence."""
    async with context.database.connection() as connection:
        return await records.get(connection, context.environment, checksum)


@router.post("/attestations", status_code=201, dependencies=[Depends(require_scope("evidence:write"))])
async def put_attestation(context: ServiceContext, envelope: Envelope) -> dict[str, str]:
    """Store an attestation under the checksum of its envelope (RFC 8785)."""
    return {"digest": await attestations.put(context, envelope)}


@router.get("/attestations")
async def get_attestations(
    context: ServiceContext,
    evidence: Annotated[Checksum | None, Query()] = None,
    generation: Annotated[int | None, Query(ge=1, le=MAX_GENERATION)] = None,
) -> list[Envelope]:
    """Stored attestations about a record of evidence, or about a release; oldest first."""
    async with context.database.connection() as connection:
        return await attestations.find(connection, context.environment, evidence=evidence, generation=generation)


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
    return {"digest": await records.put_blob(context, data)}


@router.get("/blobs/{checksum}", response_class=Response)
async def get_blob(context: ServiceContext, checksum: ChecksumPath) -> Response:
    """An attachment's exact bytes."""
    return Response(await records.get_blob(context, checksum), media_type="application/octet-stream")
