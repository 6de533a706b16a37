"""Signed records of releases and standings in the artifact store: a lost PostgreSQL is rebuilt from them.

A record is a DSSE envelope by the service's own key over the release's row, its events and its supporting documents;
the document and its signatures lie beside it under their own checksums. So a writer to the store without a key can only
destroy records, never change one and never forge one (invariant 8).
"""

from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import Field

from adapters.artifact_store import ArtifactStore
from constitution.checksum import Checksum
from constitution.errors import UntrustedError
from constitution.model import Model
from constitution.names import Names
from constitution.release import Envelope, ReleasePredicate, Standing, Verdict
from constitution.trust.trust_policy import TrustPolicy
from constitution.untrusted import read_message
from services.constitution_service.statement_key import StatementKey
from signatures import dsse
from signatures.statements import verify_release

RELEASE_RECORD = "application/vnd.somaagenthub.release-record+json"
STANDING_RECORD = "application/vnd.somaagenthub.standing-record+json"
MAX_LISTED = 10_000  # objects: far more generations than are made between a backup and the next
MAX_RECORD = 24 * 1024 * 1024  # bytes of a payload: one event for each of thousands of tenants, and what fits an object


class EventRecord(Model):
    """One event of a release, as it is sent to Kafka."""

    tenant: str
    event_id: str
    key: str
    headers: dict[str, str]
    value: str


class ReleaseRecord(Model):
    """The data of a release in PostgreSQL, beside its statement.

    ``signed_request`` is the signed change request, ``evidence`` the RFC 8785 text of the evidence record.
    """

    statement: Envelope
    previous_generation: int | None
    event_id: str
    change_request: str | None
    reason: str
    approvers: tuple[str, ...]
    approvals: tuple[Envelope, ...]
    workflow: dict[str, Any]
    signed_request: Envelope | None
    evidence: str | None
    events: tuple[EventRecord, ...]


class StandingFile(Model):
    """One standing of a release, as it was recorded."""

    environment: str
    generation: Annotated[int, Field(ge=1)]
    checksum: Checksum | None
    standing: Standing
    verdict: Verdict | None
    reason: str
    update_id: str
    recorded_at: datetime


AnyRecord = TypeVar("AnyRecord", ReleaseRecord, StandingFile)
_TYPES: dict[type[Model], str] = {ReleaseRecord: RELEASE_RECORD, StandingFile: STANDING_RECORD}


def record_path(names: Names, environment: str, generation: int, name: str = "release") -> str:
    """Return where a record lies: ``releases/[<namespace>/]<environment>/<generation>/<name>.json``."""
    folder = f"{names.namespace}/{environment}" if names.namespace else environment
    return f"releases/{folder}/{generation:010d}/{name}.json"


async def listed(store: ArtifactStore, names: Names, environment: str, generation: int) -> list[int]:
    """Return the generations above ``generation`` under which something lies in the store, ascending; not verified.

    Raises:
        UnavailableError: the store did not answer in time.
    """
    last = record_path(names, environment, generation, "~")
    folder = last.rsplit("/", 2)[0]
    found = set()
    for path in await store.after(folder, last, MAX_LISTED):
        name = path.removeprefix(f"{folder}/").partition("/")[0]
        if name.isascii() and name.isdigit():
            found.add(int(name))
    return sorted(number for number in found if number > generation)


def sign_record(record: ReleaseRecord | StandingFile, key: StatementKey) -> bytes:
    """Return the bytes to store; the same record and key give the same bytes."""
    payload = dsse.statement_bytes(record.model_dump(mode="json"))
    envelope = dsse.sign_ed25519(payload, _TYPES[type(record)], key.id, key.private_key)
    return dsse.statement_bytes(envelope.model_dump(mode="json"))


def _read(kind: type[AnyRecord], data: bytes, trust: TrustPolicy) -> AnyRecord:
    try:
        envelope = read_message(Envelope, data)
        dsse.verify_service(envelope, trust)
        return kind.model_validate(dsse.payload_of(envelope, _TYPES[kind], max_bytes=MAX_RECORD))
    except ValueError as error:
        raise UntrustedError(f"this is no {kind.__name__}") from error


def read_release_record(
    data: bytes, trust: TrustPolicy, environment: str, generation: int
) -> tuple[ReleaseRecord, ReleasePredicate]:
    """Return a release's record and what its statement says.

    Raises:
        UntrustedError: no pinned service key signed it; or it is of another release, or its approvals are not the
            statement's.
    """
    record = _read(ReleaseRecord, data, trust)
    predicate = verify_release(record.statement, trust)
    if (predicate.environment, predicate.generation) != (environment, generation):
        raise UntrustedError(f"the record is of generation {predicate.generation} of {predicate.environment}")
    # None: the release was rebuilt when nothing but its statement was left.
    if record.approvals and sorted(predicate.approvals) != sorted(map(dsse.envelope_digest, record.approvals)):
        raise UntrustedError("the record's approvals are not those of its statement")
    return record, predicate


def read_standing(
    data: bytes, trust: TrustPolicy, environment: str, generation: int, standing: Standing
) -> StandingFile:
    """Return the record of a standing.

    Raises:
        UntrustedError: no pinned service key signed it; or it is of another release or another standing.
    """
    record = _read(StandingFile, data, trust)
    if (record.environment, record.generation, record.standing) != (environment, generation, standing):
        raise UntrustedError(f"the record says {record.standing} of generation {record.generation}")
    return record
