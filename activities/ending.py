"""Reports the board's decision about an update, and the end of its run, to constitution-service.

The service, not Temporal, records the state of a change request. An update that it does not know never stored evidence,
or an older worker ran it: then there is nothing to report.
"""

from collections.abc import Sequence

from temporalio import activity

from activities.ports import ConstitutionService
from activities.text import one_line
from constitution.api import CloseRequest, DecidedRequest, UpdateRecord, UpdateState
from constitution.errors import ConflictError, NotFoundError
from constitution.release import Envelope

_MAY_STOP = frozenset({UpdateState.OPEN, UpdateState.DECIDED, UpdateState.LEASE})
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


async def ended(service: ConstitutionService, update_id: str, reason: str) -> UpdateRecord | None:
    """End an update whose run was rejected, and return where it is then; None of one that the service does not know.

    A live release stays live, and is left to its undo: any caller may stop an update safely.

    Raises:
        UnavailableError: the service does not answer.
    """
    try:
        record = await service.update(update_id)
        if record.state in _MAY_STOP:
            detail = one_line(reason, LONGEST_REASON) or "rejected"
            request = CloseRequest(change_request=record.change_request, reason=detail)
            record = await service.abort_update(update_id, request)
    except NotFoundError:
        return None
    except ConflictError:  # it went live meanwhile
        return await service.update(update_id)
    else:
        return record
