"""The history of releases as activities read it: page by page, keeping of each release only what is compared."""

from activities.ports import ConstitutionService
from constitution.past import Past, past


async def history(service: ConstitutionService) -> list[Past]:
    """Return what is compared of every release of the environment, lowest generation first.

    Raises:
        UnavailableError: constitution-service does not answer.
    """
    found = [past(release) async for release in service.history()]
    found.reverse()
    return found
