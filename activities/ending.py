"""Tells constitution-service what the board decided about an update, and that its run has ended.

It, not Temporal, knows what became of a change request. An update that it does not know never got as far as evidence,
or an older worker ran it: then there is nothing to say.
"""

from collections.abc import Sequence

from temporalio import activity

from activities.ports import ConstitutionService
from activities.text import one_line
from constitution.api import CloseRequest, DecidedRequest, UpdateRecord
from constitution.errors import ConflictError, NotFoundError
from constitution.release import Envelope

LONGEST_REASON = 1000  # characters that the service takes


async def noted(
    service: ConstitutionService, update_id: str, change_request: str, approvals: Sequence[Envelope]
) -> None:
    """Note that the board has decided, so that no deadline of the board's ends the update any more.

    Raises:
        UpdateClosedError: the update has ended.
        NotApprovedError: the service does not count these approvals.
    """
    try:
        await service.decided(update_id, DecidedRequest(change_request=change_request, approvals=tuple(approvals)))
    except NotFoundError:
        activity.logger.info("update_not_known", extra={"update": update_id})


async def ended(
    service: ConstitutionService, update_id: str, change_request: str | None, reason: str
) -> UpdateRecord | None:
    """End an update whose run was rejected, and return how it ended; None of one that the service does not know.

    An update that is live is left to its undo: stopping is safe in anybody's hands, so whoever calls this in vain
    learns that from the answer.

    Raises:
        UnavailableError: the service does not answer.
    """
    if change_request is None:
        return None
    request = CloseRequest(change_request=change_request, reason=one_line(reason, LONGEST_REASON) or "rejected")
    try:
        return await service.abort_update(update_id, request)
    except (NotFoundError, ConflictError) as error:
        activity.logger.info("update_not_ended", extra={"update": update_id, "reason": error.message})
        return None
