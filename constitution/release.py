"""Releases: each artifact that went live, when, by whose approval, and its standing."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from constitution.checksum import Checksum
from constitution.model import Model

UpdateId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
"""A lower-case UUID, made once at the start and carried by everything of one update or rollback."""

RELEASE_PREDICATE = "urn:somaagenthub:constitution:release:v1"
"""``predicateType`` of the release statement."""


class Kind(StrEnum):
    """What a release does (docs/glossary.md)."""

    UPDATE = "update"
    ROLLBACK = "rollback"  # an earlier confirmed artifact as a new generation
    REISSUE = "reissue"  # the live bytes once more, by signed override
    WITHDRAW = "withdraw"  # no constitution: undo of a first release, and the emergency stop

    @property
    def undoes(self) -> bool:
        """Whether it undoes a release."""
        return self in {Kind.ROLLBACK, Kind.WITHDRAW}


class Standing(StrEnum):
    """What became of a release; append-only (invariant 3)."""

    CONFIRMED = "confirmed"
    WITHDRAWN = "withdrawn"
    POISONED = "poisoned"


class Verdict(StrEnum):
    """The result of a watch, and of nothing else."""

    OK = "ok"
    ANOMALY = "anomaly"
    NO_DATA = "no_data"
    CANNOT_TELL = "cannot_tell"
    NOT_WATCHED = "not_watched"
    NOT_APPLICABLE = "not_applicable"  # a first release has no baseline


class Envelope(Model):
    """A DSSE envelope (github.com/secure-systems-lab/dsse, envelope.md). ``payload`` and ``sig`` are base64 text."""

    class Signature(Model):
        """One signature over the PAE of type and payload."""

        keyid: str
        sig: str

    payloadType: str  # noqa: N815 - the DSSE wire name
    payload: str
    signatures: Annotated[tuple[Signature, ...], Field(min_length=1, max_length=16)]


class Previous(Model):
    """The document that a document says it follows."""

    version: str
    checksum: Checksum


class ReleasePredicate(Model):
    """What a release statement says; ``checksum`` and ``version`` are null for a withdraw.

    ``previous`` is the checksum that was current before (null: there was none). ``signatures`` and ``approvals``
    are checksums of the signature files and of the approval envelopes (RFC 8785 bytes); ``evidence`` is the
    evidence digest (null where the kind needs none); ``reissues`` are checksums of the board's overrides by which a
    document that was undone as harmful came again. ``signatures_at`` is when the document's signatures had to be
    good: for a rollback when what it restores went live first (null: at ``effective_at``). A key that has expired
    since takes nothing away; one that is revoked, or no longer in the trust policy, does.
    """

    environment: str
    rings: tuple[str, ...]
    generation: Annotated[int, Field(ge=1)]
    kind: Kind
    version: str | None
    checksum: Checksum | None
    previous: Checksum | None
    rollback_of: int | None = None
    effective_at: datetime
    signatures: tuple[Checksum, ...] = ()
    signatures_at: datetime | None = None
    approvals: tuple[Checksum, ...] = ()
    evidence: Checksum | None = None
    update_id: str
    # Left out where there is none, so that readers from before there was this field read every other statement.
    reissues: Annotated[tuple[Checksum, ...], Field(exclude_if=lambda value: not value)] = ()


class CurrentConstitution(Model):
    """The current release of a ring: answer of ``GET /v1/constitution`` and value of the Redis key.

    ``document`` is the exact text of the document (UTF-8), null after a withdraw. ``signatures`` are the detached
    signature files, base64. Everything but ``statement`` is untrusted until the statement has been verified.
    """

    environment: str
    generation: int
    kind: Kind
    version: str | None
    checksum: Checksum | None
    effective_at: datetime
    document: str | None
    signatures: tuple[str, ...] = ()
    statement: Envelope


class Delivery(Model):
    """How far a release has been delivered. Each field is null until it happened.

    ``served_by`` are the processes of constitution-service that answer with it; ``lagging`` are those that may still
    answer with an older one from memory.
    """

    redis_at: datetime | None = None
    redis_checksum: str | None = None
    events: tuple["DeliveredEvent", ...] = ()
    delivered_at: datetime | None = None
    served_by: tuple[str, ...] = ()
    lagging: tuple[str, ...] = ()


class DeliveredEvent(Model):
    """One record on ``constitution.updated``; one per tenant."""

    tenant: str
    event_id: str
    partition: int
    offset: int


class StandingRecord(Model):
    """One append-only entry of a release's standing."""

    standing: Standing
    verdict: Verdict | None = None
    reason: str
    update_id: str
    recorded_at: datetime


class Release(Model):
    """A release row with its story so far."""

    environment: str
    generation: int
    kind: Kind
    rings: tuple[str, ...]
    version: str | None
    checksum: Checksum | None
    previous_generation: int | None
    rollback_of: int | None
    update_id: str
    event_id: str
    change_request: str | None
    reason: str
    effective_at: datetime
    approvers: tuple[str, ...]
    evidence: Checksum | None
    statement: Envelope
    approvals: tuple[Envelope, ...] = ()
    workflow: dict[str, Any] = Field(default_factory=dict)
    standings: tuple[StandingRecord, ...] = ()
    delivery: Delivery = Delivery()

    @property
    def standing(self) -> Standing | None:
        """The latest standing, or None while the release is unconfirmed."""
        return self.standings[-1].standing if self.standings else None


Delivery.model_rebuild()
