"""Every refused mutating call becomes an audit event: who, what, why (invariant 7).

Refusals of callers with a valid token are written one by one. Anonymous callers share a budget, so that nobody without
a key can fill the audit stream for ever; refusals beyond it are counted (``constitution_audit_suppressed``).
"""

import time
from uuid import uuid4

import structlog
from fastapi import Request

from constitution.api import AuditEvent
from constitution.errors import ConstitutionError
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context

ANONYMOUS_A_SECOND = 5.0  # of one process: 432,000 a day at most
ANONYMOUS_AT_ONCE = 200.0  # a burst that is written in full
_MAX_ISSUES = 20

_log = structlog.get_logger(__name__)


class Refusals:
    """The app's ``on_refused``.

    Args:
        context: of the service.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._budget = ANONYMOUS_AT_ONCE
        self._counted_at = time.monotonic()

    async def refused(self, request: Request, error: ConstitutionError) -> None:
        """Write the event; never raises, so that the caller gets its answer."""
        self._context.metrics.refusals.labels(error.code).inc()
        client: str | None = getattr(request.state, "client", None)
        if client is None and not self._afford():
            self._context.metrics.suppressed.inc()
            return
        event = _event(request, error, client)
        _log.info("refused", activity=event.activity, code=error.code, client=client, event_id=event.id)
        try:
            await audit_events.write(self._context, event)
        except Exception:  # noqa: BLE001 - a defect here must not turn a refusal into a 500; it is logged
            self._context.metrics.dropped.inc()
            _log.exception("refusal_not_audited", event_id=event.id)

    def _afford(self) -> bool:
        now = time.monotonic()
        self._budget = min(ANONYMOUS_AT_ONCE, self._budget + (now - self._counted_at) * ANONYMOUS_A_SECOND)
        self._counted_at = now
        if self._budget < 1:
            return False
        self._budget -= 1
        return True


def _event(request: Request, error: ConstitutionError, client: str | None) -> AuditEvent:
    subject = dict(getattr(request.state, "subject", {}))
    path = str(getattr(request.scope.get("route"), "path", ""))
    steps = [step for step in path.split("/") if step and not step.startswith("{")]
    return AuditEvent(
        id=str(uuid4()),
        update_id=str(subject.pop("update_id", "") or ""),
        workflow=audit_events.NO_WORKFLOW,
        activity=f"{steps[-1] if steps else 'request'}.refused",
        success=False,
        actor=client or "unknown",
        message=f"{request.method} {path}: {error.message}",
        details={
            "code": error.code,
            "status": error.status,
            "issues": [issue.model_dump() for issue in error.issues[:_MAX_ISSUES]],
            "request": subject,
            "remote": request.client.host if request.client else "",
        },
    )
