"""The releases of the environment."""

from typing import Annotated

from fastapi import APIRouter, Query

from constitution.errors import NotFoundError
from constitution.release import Release
from services.constitution_service.routes.common import MAX_GENERATION, Generation, ServiceContext
from services.constitution_service.tables import releases

router = APIRouter(prefix="/v1/constitution/releases", tags=["releases"])


@router.get("")
async def listed(
    context: ServiceContext,
    before: Annotated[int, Query(ge=1, le=MAX_GENERATION, description="generations below this one")] = MAX_GENERATION,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> list[Release]:
    """Releases, newest first, with standing and delivery."""
    async with context.database.connection() as connection:
        return await releases.read_releases(connection, context.environment, before=before, limit=limit)


@router.get("/{generation}")
async def one(context: ServiceContext, generation: Generation) -> Release:
    """One release with its whole story."""
    async with context.database.connection() as connection:
        found = await releases.read_release(connection, context.environment, generation)
    if found is None:
        raise NotFoundError(f"there is no generation {generation}", hint="constitution releases")
    return found
