"""What the routes share: types of parameters, the context, and what a refusal's audit event says of the request."""

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


def remember(request: Request, body: BaseModel, **more: object) -> None:
    """Keep what an audit event should say about this call, if it is refused."""
    said = body.model_dump(mode="json", include=set(_TOLD))
    request.state.subject = {**said, **more}
