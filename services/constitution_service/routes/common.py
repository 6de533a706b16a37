"""Shared by the routes: types of parameters, the context, and the request's part of a refusal's audit event."""

from typing import Annotated

from fastapi import Depends, Path, Query, Request
from pydantic import BaseModel

from constitution.checksum import Checksum
from constitution.environment import Identifier
from services.constitution_service.context import Context, context

MAX_GENERATION = 2**53 - 1

ServiceContext = Annotated[Context, Depends(context)]
ChecksumPath = Annotated[Checksum, Path(description="`sha256:` and 64 hex digits")]
Generation = Annotated[int, Path(ge=1, le=MAX_GENERATION)]
Ring = Annotated[Identifier, Query(description="name of the ring")]

_TOLD = ("update_id", "kind", "checksum", "rings", "change_request", "rollback_of", "standing", "expected_generation")


def note_for_audit(request: Request, body: BaseModel, **more: object) -> None:
    """Keep the details of this call for its audit event, if it is refused."""
    details = body.model_dump(mode="json", include=set(_TOLD))
    request.state.subject = {**details, **more}
