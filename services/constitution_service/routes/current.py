"""The current release of a ring."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from constitution.names import DEFAULT_RING
from constitution.release import CurrentConstitution
from services.constitution_service.releasing import current
from services.constitution_service.routes.common import MAX_GENERATION, Ring, ServiceContext

router = APIRouter(prefix="/v1", tags=["current"])


@router.get(
    "/constitution",
    response_model=CurrentConstitution,
    responses={304: {"description": "the release that If-None-Match names is still current"}},
)
async def read_current(
    context: ServiceContext,
    ring: Ring = DEFAULT_RING,
    min_generation: Annotated[int, Query(ge=0, le=MAX_GENERATION, description="bypass anything older")] = 0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The current document with the statement that makes a consumer obey; 404 ``no-constitution`` before the first.

    Every call reads the current generation from PostgreSQL, so nothing older than ``min_generation`` is ever served
    while a newer one exists, even if a cache holds it.
    """
    pointer = await current.pointer_of(context, ring)
    headers = {
        "ETag": current.etag(pointer),
        "Constitution-Version": pointer.version or "none",
        "Constitution-Generation": str(pointer.generation),
        "Cache-Control": "no-cache",
    }
    if pointer.generation >= min_generation and _matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    found = await current.read(context, ring, pointer)
    return Response(found.model_dump_json(), media_type="application/json", headers=headers)


def _matches(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in tags or "*" in tags
