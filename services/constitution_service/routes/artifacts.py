"""Artifacts, change requests and validation."""

import asyncio
from contextlib import nullcontext
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import ValidationError
from starlette.datastructures import UploadFile as StarletteUpload
from starlette.exceptions import HTTPException

from constitution.api import (
    Artifact,
    ArtifactSignatures,
    ChangeRequestRecord,
    ReissueRecord,
    ValidateRequest,
    ValidateResult,
)
from constitution.environment import issues_of
from constitution.errors import InvalidRequestError, Issue
from constitution.messages import ChangeRequestId
from constitution.policy.document import schema
from constitution.release import Envelope
from constitution.strict_json import MAX_BYTES
from services.common.auth import known_by, require_scope
from services.common.limits import FORM, BodyTooLargeError
from services.common.problems import UnreadableRequestError
from services.constitution_service.artifacts import artifacts, change_requests, poisoned
from services.constitution_service.context import Context
from services.constitution_service.releasing import reissue_calls, validation
from services.constitution_service.routes.anonymous_limits import AnonymousCallers
from services.constitution_service.routes.common import ChecksumPath, ServiceContext
from signatures.verify import MAX_SIGNATURES

router = APIRouter(prefix="/v1/constitution", tags=["artifacts"])
_FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}


def _form_of(least: int) -> dict[str, object]:
    """Return OpenAPI's content of a form with a document and at least so many signatures.

    The form is read by hand (``_form``), after the token was checked and not on the event loop.
    """
    file = {"type": "string", "format": "binary"}
    many = {"type": "array", "items": file, "minItems": least, "maxItems": MAX_SIGNATURES}
    properties = {"document": file, "signature": many}
    required = ["document", "signature"] if least else ["document"]
    return {FORM: {"schema": {"type": "object", "required": required, "properties": properties}}}


@router.post("/artifacts", status_code=201, openapi_extra={"requestBody": {"required": True, "content": _form_of(1)}})
async def push(
    context: ServiceContext,
    request: Request,
    response: Response,
    client: Annotated[str, Depends(require_scope("artifacts:write"))],
) -> Artifact:
    """Store a document and its detached signatures; the same bytes again: 200 with the same body."""
    data, signatures = await _form(request)
    if not signatures:
        raise UnreadableRequestError(
            "the form must hold one file `document` and at least one file `signature`",
            issues=[Issue(code="missing", path="/signature", message="0 files named signature")],
        )
    artifact, created = await artifacts.push(context, data, signatures, client)
    if not created:
        response.status_code = 200
    return artifact


@router.get("/artifacts/{checksum}", response_class=Response)
async def document(context: ServiceContext, checksum: ChecksumPath) -> Response:
    """The exact bytes, for ever."""
    data = await artifacts.read_bytes(context, checksum)
    return Response(data, media_type="application/json", headers={**_FOREVER, "ETag": f'"{checksum}"'})


@router.get("/artifacts/{checksum}/signatures")
async def signatures(context: ServiceContext, checksum: ChecksumPath) -> ArtifactSignatures:
    """The detached signature files, base64; more may come, none goes."""
    async with context.database.connection() as connection:
        stored = await artifacts.get(connection, context.environment, checksum)
    return ArtifactSignatures(signatures=artifacts.encoded(stored.signatures))


@router.post(
    "/validate",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": ValidateRequest.model_json_schema()},
                **_form_of(0),
            },
        }
    },
)
async def validate(
    context: ServiceContext, request: Request, client: Annotated[str | None, Depends(known_by("artifacts:write"))]
) -> ValidateResult:
    """Say whether a stored artifact (by checksum) or files (multipart) could go live now. Changes nothing.

    Open to everybody; without a token of scope `artifacts:write` only a few at a time are answered, else 503.
    """
    anonymous: AnonymousCallers = request.app.state.anonymous_callers
    async with nullcontext() if client is not None else anonymous.turn():
        result = await _validated(context, request)
    refusal = poisoned.refusal(result.version, result.issues)
    if refusal is not None:  # the answer is 200; who watches the audit stream is told all the same
        request.state.client, request.state.subject = client, {"checksum": result.checksum}
        await request.app.state.on_refused(request, refusal)
    return result


@router.post("/change-requests", status_code=201)
async def create_change_request(
    context: ServiceContext,
    response: Response,
    client: Annotated[str, Depends(require_scope("change-requests:write"))],
    envelope: Envelope,
) -> ChangeRequestRecord:
    """Store a change request: a DSSE envelope signed with the author's own key."""
    record, created = await change_requests.create(context, envelope, client)
    if not created:
        response.status_code = 200
    return record


@router.get("/change-requests/{identity}")
async def change_request(
    context: ServiceContext, identity: Annotated[ChangeRequestId, Path(description="e.g. CR-142")]
) -> ChangeRequestRecord:
    """A stored change request."""
    async with context.database.connection() as connection:
        return await change_requests.get(connection, context.environment, identity)


@router.post("/change-requests/{identity}/reissue")
async def reissue(
    context: ServiceContext,
    request: Request,
    client: Annotated[str, Depends(require_scope("change-requests:write"))],
    identity: Annotated[ChangeRequestId, Path(description="e.g. CR-142")],
    envelope: Envelope,
) -> ReissueRecord:
    """Store a board member's signed override: this change request may release again what was poisoned."""
    request.state.subject = {"change_request": identity}
    return await reissue_calls.accept(context, identity, envelope, client)


@router.get("/schema")
async def document_schema(schema_version: int = 1) -> dict[str, object]:
    """The JSON Schema (2020-12) of constitutions."""
    return schema(schema_version)


async def _validated(context: Context, request: Request) -> ValidateResult:
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type == FORM:
        data, files = await _form(request)
        return await validation.validate(context, data, files)
    try:
        asked = ValidateRequest.model_validate_json(await request.body())
    except ValidationError as error:
        raise UnreadableRequestError(
            'send {"checksum": …}, or multipart with document and signature', issues=issues_of(error)
        ) from error
    async with context.database.connection() as connection:
        stored = await artifacts.get(connection, context.environment, asked.checksum)
    return await validation.validate(context, stored.document, stored.signatures)


async def _form(request: Request) -> tuple[bytes, list[bytes]]:
    """Return the document and the signatures of a form, read in a thread: four hostile megabytes take 0.2 s."""
    await request.body()  # read already, by services.common.limits: the thread's own loop waits for nothing
    try:
        return await asyncio.to_thread(asyncio.run, _files(request))
    except HTTPException as error:  # Starlette's word for a form that is none, or that holds too many parts
        raise UnreadableRequestError(f"the form cannot be read: {error.detail}") from error


async def _files(request: Request) -> tuple[bytes, list[bytes]]:
    async with request.form(max_files=MAX_SIGNATURES + 1, max_fields=0) as form:
        documents = [part for part in form.getlist("document") if isinstance(part, StarletteUpload)]
        files = [part for part in form.getlist("signature") if isinstance(part, StarletteUpload)]
        if len(documents) != 1 or len(documents) + len(files) != len(form.multi_items()):
            raise UnreadableRequestError(
                "the form must hold one file `document` and the files `signature`",
                issues=[Issue(code="form", path="/document", message=f"{len(documents)} files named document")],
            )
        return await _document(documents[0]), [await _signature(file) for file in files]


async def _document(file: StarletteUpload) -> bytes:
    data = await file.read()
    if len(data) > MAX_BYTES:
        raise BodyTooLargeError(f"the document has {len(data)} bytes; at most {MAX_BYTES} are taken")
    return data


async def _signature(file: StarletteUpload) -> bytes:
    data = await file.read()
    if not data:
        raise InvalidRequestError("a signature file is empty")
    return data
