"""Decisions and refusals go into the audit stream."""

from temporalio import activity

from activities.ending import ended
from activities.failures import classified
from activities.ports import ConstitutionService
from constitution.api import AuditEvent

REJECTED = "update.rejected"
"""The event of a run that ends without having published."""


class Audit:
    """Records one event; the service turns it into OCSF and sends it through its outbox."""

    def __init__(self, *, service: ConstitutionService) -> None:
        self._service = service

    @activity.defn
    @classified
    async def audit(self, x: AuditEvent) -> None:
        """Append an event; the event of a rejected run also ends its update in the service.

        Assumes: ``x.id`` was made deterministically by the caller (``<update_id>/<what>``).
        Twice, or killed half-way: the id makes it one event, and an update ends once. Run long after its caller died:
        it still only records, and an update that is live does not end by it.

        Raises:
            ForbiddenError: the worker's key lacks the scope ``audit:write``.
        """
        await self._service.audit(x)
        if x.activity == REJECTED:
            await ended(self._service, x.update_id, x.message)
