"""The current release of a ring. Most calls never come here: ``routes.shortcut`` answers them from memory."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from constitution.names import DEFAULT_RING
from constitution.release import CurrentConstitution
from services.constitution_service.delivery.value_restorer import restore
from services.constitution_service.routes.common import MAX_GENERATION, Ring, ServiceContext

router = APIRouter(prefix="/v1", tags=["current"])
WARNING = '111 - "Revalidation Failed"'  # RFC 7234 §5.5.2; RFC 9111 leaves it to Age alone, which is sent, too


@router.get(
    "/constitution",
    response_model=CurrentConstitution,
    responses={304: {"description": "the release that If-None-Match names is still current"}},
)
async def read_current(
    *,
    context: ServiceContext,
    ring: Ring = DEFAULT_RING,
    min_generation: Annotated[int, Query(ge=0, le=MAX_GENERATION, description="bypass anything older")] = 0,
    if_none_match: Annotated[str | None, Header()] = None,
    cache_control: Annotated[str | None, Header()] = None,
) -> Response:
    """The current document with the statement that makes a consumer obey; 404 ``no-constitution`` before the first.

    From memory, at most 2 seconds after PostgreSQL confirmed it. ``Cache-Control: no-cache``, and a
    ``min_generation`` that memory does not have, ask PostgreSQL now. While it does not answer, what it confirmed last
    is given with ``Age`` and ``Warning: 111`` until ``MAX_STALENESS_SECONDS``.
    """
    certain = cache_control is not None and "no-cache" in cache_control.lower()
    served = await context.memory.read(ring, min_generation=min_generation, certain=certain)
    if certain:
        await restore(context, ring, served.answer)
    answer, marks = served.answer, {}
    context.metrics.current_reads.labels("confirmed" if served.age_s is None else "stale").inc()
    if served.age_s is not None:
        marks = {"Age": str(served.age_s), "Warning": WARNING}
    headers = {name.decode(): value.decode() for name, value in answer.headers} | marks
    if answer.pointer.generation >= min_generation and answer.matches(if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(answer.body, media_type="application/json", headers=headers)
