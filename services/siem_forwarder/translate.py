"""From a Kafka record to an OCSF event. An untrusted record becomes a finding; nothing raises, nothing is lost.

- ``constitution.updated``: trusted when its statement verifies and says what the event says; becomes API Activity.
- ``constitution.audit``: OCSF already; trusted when it is valid by the pinned schema, and forwarded unchanged, every
  one: they are numbered, and one that is left out would be missing to ``constitution audit verify``.
"""

from dataclasses import dataclass

from pydantic import ValidationError

from adapters.environment_config import EnvironmentConfig
from adapters.kafka_consumer import ConsumedMessage
from constitution import strict_json
from constitution.api import AuditEvent, WorkflowRef
from constitution.errors import ConstitutionError
from constitution.events import UPDATED_TYPE, UpdatedEvent, ocsf_event
from constitution.names import Names
from services.siem_forwarder.ocsf_schema import OcsfSchema
from services.siem_forwarder.quarantine import finding
from services.siem_forwarder.sinks.sink import Event
from signatures.statements import verify_release

_SIGNED = ("environment", "rings", "generation", "kind", "version", "checksum", "previous", "effective_at", "update_id")
_UNSAID = frozenset({"statement", "tenant", "update_id", "workflow_id", "run_id", "environment"})


@dataclass(frozen=True, slots=True)
class Translated:
    """An event for the SIEM; ``refused`` says why it is a finding about the record instead of what the record says."""

    event: Event
    refused: str | None


class _RefusedError(Exception):
    """The record cannot be trusted."""


class Translator:
    """Translates records of both topics.

    Args:
        names: of the topics.
        config: environment, and the trust policy whose service keys sign statements.
    """

    def __init__(self, names: Names, config: EnvironmentConfig) -> None:
        self._audit_topic = names.topic_audit()
        self._config = config
        self._schema = OcsfSchema()

    def translate(self, record: ConsumedMessage) -> Translated:
        """Return the event of a record, or the finding about it."""
        try:
            event = self._audit(record) if record.topic == self._audit_topic else self._updated(record)
            self._require_valid(event)
        except _RefusedError as error:
            return Translated(finding(record, str(error)), str(error))
        except Exception as error:  # noqa: BLE001 - the stream goes on after any hostile record
            why = f"it cannot be read: {type(error).__name__}"
            return Translated(finding(record, why), why)
        return Translated(event, None)

    def _require_valid(self, event: Event) -> None:
        problems = self._schema.problems(event)
        if problems:
            raise _RefusedError("it is not valid OCSF: " + "; ".join(problems))

    def _audit(self, record: ConsumedMessage) -> Event:
        event = _json(record)
        if not isinstance(event, dict):
            raise _RefusedError("it is no JSON object")
        return event

    def _updated(self, record: ConsumedMessage) -> Event:
        try:
            event = UpdatedEvent.model_validate(_json(record))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = "/".join(str(part) for part in first["loc"])
            raise _RefusedError(f"it is no {UPDATED_TYPE} event: {where}: {first['msg']}") from error
        try:
            release = verify_release(event.statement, self._config.trust)
        except ConstitutionError as error:
            raise _RefusedError(f"its statement does not verify: {error.message}") from error
        for name in _SIGNED:
            if getattr(event, name) != getattr(release, name):
                raise _RefusedError(f"its {name} is not what its statement says")
        event_id = record.header("ce_id")
        if record.header("ce_type") != UPDATED_TYPE or event_id is None:
            raise _RefusedError("its headers are not those of a CloudEvent of this type")
        if not event_id.endswith(f":{event.tenant}") or len(event_id) > 256:
            raise _RefusedError("its id does not end with its tenant")
        what = event.version or "no constitution"
        told = AuditEvent(
            id=event_id,
            update_id=event.update_id,
            workflow=WorkflowRef(workflow_id=event.workflow_id, run_id=event.run_id),
            activity="constitution.updated",
            success=True,
            actor="constitution-service",
            message=f"generation {event.generation} ({event.kind}): {what}. {event.summary}",
            details={"tenant": event.tenant, **event.model_dump(mode="json", exclude=set(_UNSAID))},
        )
        return ocsf_event(told, environment=event.environment, time=release.effective_at)


def _json(record: ConsumedMessage) -> object:
    if record.value is None:
        raise _RefusedError("it has no value")
    try:
        return strict_json.read(record.value)
    except strict_json.StrictJsonError as error:
        raise _RefusedError(f"it is not strict JSON: {error}") from error
