"""The history of releases as activities read it: page by page, keeping of each release only what is compared."""

from activities.ports import ConstitutionService
from constitution.past import Past, past
from constitution.release import Release


async def undoing(service: ConstitutionService, generation: int) -> Release | None:
    """Return the release that undoes a generation, or None; the newest, should there be several.

    Raises:
        UnavailableError: constitution-service does not answer.
    """
    async for release in service.iter_releases():
        if release.generation <= generation:
            return None
        if release.rollback_of == generation:
            return release
    return None


async def past_releases(service: ConstitutionService) -> list[Past]:
    """Return what is compared of every release of the environment, lowest generation first.

    Raises:
        UnavailableError: constitution-service does not answer.
    """
    found = [past(release) async for release in service.iter_releases()]
    found.reverse()
    return found
