"""Is there a refused update, as far as constitution-service can say? Before it comes into the legal archive."""

import asyncio

from activities.ports import ConstitutionService
from constitution.api import ChangeRequestRecord, UpdateState
from constitution.errors import ConflictError, ForbiddenError, NotFoundError, NotYetError
from constitution.policy.document import parse

_WENT_LIVE = frozenset({UpdateState.LOADED, UpdateState.CONFIRMED, UpdateState.UNDONE})

_ENDED = frozenset({UpdateState.DENIED, UpdateState.ABORTED, UpdateState.EXPIRED})


async def known_of(service: ConstitutionService, update_id: str) -> dict[str, str]:
    """Return change request, checksum and version of an update, as the service recorded them; empty of an unknown one.

    Raises:
        UnavailableError: the service does not answer.
    """
    try:
        record = await service.update(update_id)
        checksum = (await service.change_request(record.change_request)).request.checksum
        document = await service.artifact(checksum)
    except NotFoundError:
        return {}
    version = (await asyncio.to_thread(parse, document)).version
    return {"change_request": record.change_request, "checksum": checksum, "version": version}


async def require_known(
    service: ConstitutionService, what: str, update_id: str, change_request: str | None, checksum: str | None
) -> ChangeRequestRecord | None:
    """Return the signed change request of what was refused, where it named one.

    Raises:
        ForbiddenError: neither its change request nor its document is known; or the update is of another request.
        ConflictError: the update went live.
        NotYetError: it has not ended: whoever reaches Temporal must not have an open one called refused.
        UnavailableError: the service does not answer.
    """
    try:
        if change_request is not None:
            request = await service.change_request(change_request)
        elif checksum is not None:
            request = None
            await service.artifact(checksum)
        else:
            raise ForbiddenError("it names neither a change request nor a document")
    except NotFoundError as error:
        raise ForbiddenError(f"it names nothing that is known: {error.message}") from error
    if what != "update":
        return request
    try:
        record = await service.update(update_id)
    except NotFoundError:  # refused before there was evidence
        return request
    if record.state in _WENT_LIVE:
        raise ConflictError(f"the update {update_id} is {record.state.value}: it was not refused")
    if record.state not in _ENDED:
        raise NotYetError(f"the update {update_id} is {record.state.value}: it has not ended")
    if change_request is not None and record.change_request != change_request:
        raise ForbiddenError(f"the update {update_id} is one of {record.change_request}")
    return request
