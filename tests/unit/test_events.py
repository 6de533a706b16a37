"""The two kinds of events, against the specifications' own schema."""

import pytest
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from constitution.api import AuditEvent, WorkflowRef
from constitution.events import OCSF_VERSION, UpdatedEvent, ocsf_event, updated_headers
from constitution.release import Kind
from tests.unit.keyring import NOW
from tests.unit.test_statements import signed_release

API_ACTIVITY = Draft202012Validator(
    OcsfJsonSchemaEmbedded(get_ocsf_schema(OCSF_VERSION)).get_class_schema("api_activity")
)


def audit(activity: str, *, success: bool, actor: str = "", update_id: str = "", workflow_id: str = "") -> AuditEvent:
    return AuditEvent(
        id="u/1",
        update_id=update_id,
        workflow=WorkflowRef(workflow_id=workflow_id, run_id="r"),
        activity=activity,
        success=success,
        actor=actor,
        message="what happened" * 1000,
        details={"checksum": "sha256:" + "a" * 64, "nested": {"a": [1, 2]}},
    )


@pytest.mark.parametrize("activity", ["artifact.pushed", "release.loaded", "lease.released", "update.rejected", "x"])
@pytest.mark.parametrize("success", [True, False])
def test_audit_events_are_valid_ocsf(activity: str, *, success: bool) -> None:
    for event in (
        audit(activity, success=success),
        audit(activity, success=success, actor="alva", update_id="u", workflow_id="w"),
    ):
        written = ocsf_event(event, environment="development", time=NOW)
        assert [error.message for error in API_ACTIVITY.iter_errors(written)] == []
        assert written["type_uid"] == written["class_uid"] * 100 + written["activity_id"]
        assert written["metadata"]["uid"] == "u/1"
        assert written["status"] == ("Success" if success else "Failure")
        assert len(written["message"]) <= 4096


@pytest.mark.parametrize(
    ("activity", "success", "details", "severity"),
    [
        ("update.completed", True, {}, "Informational"),
        ("rollback.completed", True, {}, "High"),
        ("constitution.updated", True, {"kind": "update"}, "Informational"),
        ("constitution.updated", True, {"kind": "rollback"}, "High"),
        ("release.loaded", True, {"kind": "withdraw"}, "Informational"),
        ("standing.recorded", True, {"standing": "confirmed"}, "Informational"),
        ("standing.recorded", True, {"standing": "poisoned"}, "High"),
        ("standing.recorded", True, {"standing": "withdrawn"}, "High"),
        ("lease.pre-empted", True, {}, "Medium"),
        ("update.rejected", False, {}, "Medium"),
        ("load.refused", False, {"kind": "rollback"}, "High"),
    ],
)
def test_what_takes_a_constitution_out_of_force_is_severe(
    activity: str, success: bool, details: dict[str, str], severity: str
) -> None:
    event = audit(activity, success=success).model_copy(update={"details": details})
    written = ocsf_event(event, environment="development", time=NOW)
    assert written["severity"] == severity
    assert [error.message for error in API_ACTIVITY.iter_errors(written)] == []


def test_the_schema_would_notice_a_missing_field() -> None:
    written = ocsf_event(audit("x", success=True), environment="development", time=NOW)
    del written["metadata"]
    assert list(API_ACTIVITY.iter_errors(written))


def test_an_update_event_carries_cloudevents_attributes_in_its_headers() -> None:
    event = UpdatedEvent(
        tenant="global",
        environment="development",
        rings=("default",),
        generation=7,
        kind=Kind.UPDATE,
        version="1.1.0",
        checksum="sha256:" + "a" * 64,
        previous=None,
        effective_at=NOW,
        summary="s",
        approvers=("alva",),
        update_id="u",
        workflow_id="w",
        run_id="r",
        statement=signed_release(),
    )
    headers = updated_headers(event, "id:global")
    assert headers["ce_specversion"] == "1.0"
    assert headers["ce_id"] == "id:global"
    assert headers["ce_type"] == "constitution.updated.v1"
    assert headers["ce_source"] == "/constitution-service/development"
    assert headers["ce_subject"] == event.checksum
    assert headers["ce_time"].endswith("Z")
    assert headers["content-type"] == "application/json"
    assert updated_headers(event.model_copy(update={"checksum": None}), "i")["ce_subject"] == "none"
    assert UpdatedEvent.model_validate_json(event.model_dump_json()) == event
