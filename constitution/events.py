"""The two kinds of events: ``constitution.updated`` (a hint; CloudEvents) and audit events (OCSF).

Sources: CloudEvents 1.0.2, Kafka protocol binding §3.2 (binary content mode: attributes in headers, data in the
value); OCSF 1.6.0, class API Activity (schema.ocsf.io/1.6.0/classes/api_activity).
"""

from datetime import UTC, datetime
from typing import Any

from constitution.api import AuditEvent
from constitution.checksum import Checksum
from constitution.model import Model
from constitution.release import Envelope, Kind, Standing

TOLD_BY_UPDATED = "release.loaded"
"""Its ``constitution.updated``, which is signed, tells the same. It has a number, so a SIEM must get both: this one as
Other and Informational, or each release would count, and alarm, twice."""
UPDATED_TYPE = "constitution.updated.v1"
OCSF_VERSION = "1.6.0"
MAX_MESSAGE = 4096  # characters; a refusal can repeat an anonymous caller's text

_CREATE, _UPDATE, _DELETE, _OTHER = 1, 3, 4, 99
_ACTIVITY_NAMES = {_CREATE: "Create", _UPDATE: "Update", _DELETE: "Delete", _OTHER: "Other"}
_ACTIVITIES = {
    "artifact.pushed": _CREATE,
    "change_request.created": _CREATE,
    "evidence.stored": _CREATE,
    "lease.acquired": _CREATE,
    "lease.released": _DELETE,
    "constitution.updated": _UPDATE,
    "standing.recorded": _UPDATE,
    "receipt.sealed": _CREATE,
    "update.completed": _UPDATE,
    "update.rolled_back": _UPDATE,
}


# OCSF severity_id: https://schema.ocsf.io/1.6.0/classes/api_activity (severity_id)
_INFORMATIONAL, _MEDIUM, _HIGH = 1, 3, 4
_SEVERITY_NAMES = {_INFORMATIONAL: "Informational", _MEDIUM: "Medium", _HIGH: "High"}
_SEVERE = {
    "rollback.completed": _HIGH,
    "update.rolled_back": _HIGH,
    "cache.forged": _HIGH,
    "audit.continued": _HIGH,
    "audit.forked": _HIGH,
    "guard.rejected": _MEDIUM,
    "guard.completed": _MEDIUM,
    "lease.pre-empted": _MEDIUM,
    "reconcile.repaired": _MEDIUM,
    "service.recovered": _MEDIUM,
}


def severity_of(event: AuditEvent) -> int:
    """Return OCSF's ``severity_id``. An event that takes a constitution out of force is High, even on success."""
    if event.activity == TOLD_BY_UPDATED:
        return _INFORMATIONAL
    undoes = event.details.get("kind") in {Kind.ROLLBACK.value, Kind.WITHDRAW.value}
    undone = event.details.get("standing") in {Standing.WITHDRAWN.value, Standing.POISONED.value}
    if undoes or undone:
        return _HIGH
    return max(_SEVERE.get(event.activity, _INFORMATIONAL), _INFORMATIONAL if event.success else _MEDIUM)


class UpdatedEvent(Model):
    """Value of a ``constitution.updated`` record: one per configured tenant, key = tenant.

    A hint: a consumer uses only ``statement``, once verified (invariant 8).
    """

    tenant: str
    environment: str
    rings: tuple[str, ...]
    generation: int
    kind: Kind
    version: str | None
    checksum: Checksum | None
    previous: Checksum | None
    effective_at: datetime
    summary: str
    approvers: tuple[str, ...]
    update_id: str
    workflow_id: str
    run_id: str
    statement: Envelope


def updated_headers(event: UpdatedEvent, event_id: str) -> dict[str, str]:
    """Return the Kafka headers of an event: CloudEvents attributes in binary content mode.

    Args:
        event: its value.
        event_id: ``<uuid of the release's event>:<tenant>``; the same for a duplicate.
    """
    return {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_type": UPDATED_TYPE,
        "ce_source": f"/constitution-service/{event.environment}",
        "ce_subject": event.checksum or "none",
        "ce_time": event.effective_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "content-type": "application/json",
    }


def ocsf_event(event: AuditEvent, *, environment: str, time: datetime) -> dict[str, Any]:
    """Return an audit event as OCSF 1.6.0 API Activity (class 6003).

    Args:
        event: what happened; its ``id`` becomes ``metadata.uid``, by which duplicates are dropped.
        environment: where.
        time: when; aware.
    """
    activity_id = _ACTIVITIES.get(event.activity, _OTHER)
    severity_id = severity_of(event)
    details = {**event.details, "environment": environment}
    if event.workflow.workflow_id:
        details["workflow"] = event.workflow.model_dump()
    actor: dict[str, Any] = {"app_name": "constitution-runbook"}
    if event.actor:
        actor["user"] = {"uid": event.actor, "name": event.actor}
    api: dict[str, Any] = {"operation": event.activity, "service": {"name": "constitution-service"}}
    metadata: dict[str, Any] = {
        "version": OCSF_VERSION,
        "uid": event.id,
        "product": {"name": "constitution-runbook", "vendor_name": "SomaAgentHub"},
        "log_name": "constitution.audit",
    }
    if event.update_id:
        api["request"] = {"uid": event.update_id}
        metadata["correlation_uid"] = event.update_id
    return {
        "activity_id": activity_id,
        "activity_name": _ACTIVITY_NAMES[activity_id] if activity_id != _OTHER else event.activity,
        "category_uid": 6,
        "category_name": "Application Activity",
        "class_uid": 6003,
        "class_name": "API Activity",
        "type_uid": 600300 + activity_id,
        "severity_id": severity_id,
        "severity": _SEVERITY_NAMES[severity_id],
        "status_id": 1 if event.success else 2,
        "status": "Success" if event.success else "Failure",
        "time": int(time.timestamp() * 1000),
        "message": event.message[:MAX_MESSAGE],
        "actor": actor,
        "api": api,
        "src_endpoint": {"name": "constitution-service", "svc_name": "constitution-service"},
        "metadata": metadata,
        "unmapped": details,
    }
