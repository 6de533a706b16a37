"""Decisions and refusals go into the audit stream."""

from temporalio import activity

from activities.failures import classified
from activities.ports import ConstitutionService
from constitution.api import AuditEvent


class Audit:
    """Records one event; the service turns it into OCSF and sends it through its outbox."""

    def __init__(self, *, service: ConstitutionService) -> None:
        self._service = service

    @activity.defn
    @classified
    async def audit(self, x: AuditEvent) -> None:
        """Record an event.

        Assumes: ``x.id`` was made deterministically by the caller (``<update_id>/<what>``).
        Twice, or killed half-way: the id makes it one event. Run long after its caller died: it still only records.

        Raises:
            ForbiddenError: the worker's key lacks the scope ``audit:write``.
        """
        await self._service.audit(x)
