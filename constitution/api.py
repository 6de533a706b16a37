"""The JSON of constitution-service's HTTP API: shared by the service and its clients. Routes: docs/architecture.md."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from constitution.checksum import Checksum
from constitution.errors import Issue
from constitution.messages import ChangeRequestId, Reason
from constitution.model import Model
from constitution.release import Envelope, Kind, Standing, UpdateId

Number = Annotated[int, Field(ge=0, le=2**53 - 1)]
"""A generation or a fencing token: what JSON (RFC 8785) and the database hold exactly."""


class Problem(Model):
    """RFC 9457 problem details (``application/problem+json``). ``type`` is ``urn:somaagenthub:problem:<code>``."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    issues: tuple[Issue, ...] = ()
    hint: str = ""
    current: dict[str, Any] | None = None  # on 409: what is current, or who holds the lease


class Artifact(Model):
    """Answer of ``POST /v1/constitution/artifacts``; the same bytes again give the same body.

    Args:
        signers: the maintainers who have signed it, in this push or an earlier one.
        needed: how many must have before an update makes it live; with fewer it is stored, and waits for the others.
            None: a service of before this field said it, or a history holds it.
    """

    checksum: Checksum
    version: str
    signers: tuple[str, ...]
    needed: int | None = None
    storage_uri: str


class ArtifactSignatures(Model):
    """Answer of ``GET /v1/constitution/artifacts/{checksum}/signatures``: base64 files."""

    signatures: tuple[str, ...]


class ChangeRequest(Model):
    """What an author asks the board for; travels as the payload of a DSSE envelope signed by ``author``."""

    id: ChangeRequestId
    author: str
    checksum: Checksum
    reason: Reason


class ChangeRequestRecord(Model):
    """A stored change request."""

    request: ChangeRequest
    envelope: Envelope
    created_at: datetime


class ValidateRequest(Model):
    """Body of ``POST /v1/constitution/validate`` by checksum."""

    checksum: Checksum


class ValidateResult(Model):
    """Answer of validate; ``checksum`` is of the bytes looked at, also when they are not valid.

    ``harmful`` names the release that was undone because of these bytes or rules; it is no issue where enough of the
    board (``reissued_by``) have signed that the document may come again.
    """

    valid: bool
    checksum: Checksum
    version: str | None = None
    signers: tuple[str, ...] = ()
    issues: tuple[Issue, ...] = ()
    harmful: Issue | None = None
    reissued_by: tuple[str, ...] = ()


class EvidenceRecord(Model):
    """What the regression gate and the preparation found; stored under its own checksum (RFC 8785 bytes).

    ``gate_digest`` is the digest of the gate's directory; ``suites`` count what ran. ``update_id`` is of the run that
    made it: a decision names the evidence, and with it this run and no other. Null where no run made it.
    """

    class Suite(Model):
        """One of ``policy`` and ``chaos``."""

        name: str
        tests: int
        failures: int
        errors: int
        skipped: int
        seconds: float
        junit: Checksum
        served: tuple[Checksum, ...] = ()

    environment: str
    checksum: Checksum
    version: str
    previous: Checksum | None
    change_request: str
    gate_digest: Checksum
    suites: tuple[Suite, ...]
    diff: tuple[str, ...] = ()
    prediction: dict[str, Any] | None = None
    # Left out where it is null, so that the digest of a record from before there was this field stays what it was.
    update_id: Annotated[UpdateId | None, Field(exclude_if=lambda value: value is None)] = None


class LeaseRequest(Model):
    """Body of ``POST /v1/constitution/lease``.

    ``own_only``: a rollback that only fences its own update takes the lease from nobody else. ``undoes``: the
    generation that a rollback is for; it takes the lease from another update only while that one is live.
    ``approvals``: the board's decisions, where they and no operator's order are what the rollback rests on.
    """

    update_id: UpdateId
    kind: Kind
    workflow_id: str = ""
    own_only: bool = False
    undoes: Number | None = None
    approvals: Annotated[tuple[Envelope, ...], Field(max_length=64)] = ()


class LeaseHolder(Model):
    """The holder of the lease, without its token: for every caller."""

    update_id: UpdateId
    kind: Kind
    workflow_id: str = ""
    acquired_at: datetime


class Lease(LeaseHolder):
    """The lease, and the token that fences everyone who held it before: for callers with the scope ``lease:write``."""

    fencing_token: Number


class LeaseRelease(Model):
    """Body of ``DELETE /v1/constitution/lease``; an old token is a no-op."""

    update_id: UpdateId
    fencing_token: Number


class WorkflowRef(Model):
    """The run that makes the call."""

    workflow_id: str
    run_id: str


class LoadRequest(Model):
    """Body of ``POST /v1/constitution/load``. ``checksum`` is null for kind ``withdraw``."""

    update_id: UpdateId
    kind: Kind
    checksum: Checksum | None
    rings: Annotated[tuple[str, ...], Field(min_length=1)]
    expected_generation: Number
    fencing_token: Number
    change_request: ChangeRequestId | None = None
    approvals: tuple[Envelope, ...] = ()
    test_evidence: Checksum | None = None
    rollback_of: Number | None = None
    reason: Reason
    workflow: WorkflowRef


class LoadResult(Model):
    """Answer of load."""

    generation: int
    version: str | None
    checksum: Checksum | None
    event_id: str
    effective_at: datetime
    statement: Envelope


class StandingRequest(Model):
    """Body of ``POST /v1/constitution/releases/{generation}/standing``; needs the current fencing token.

    The verdict is what assessors have attested, not the caller's word. ``orders``: signed by board members, in place of
    attestations, or of a release that undoes it.
    """

    standing: Standing
    reason: Reason
    update_id: UpdateId
    fencing_token: Number
    orders: Annotated[tuple[Envelope, ...], Field(max_length=64)] = ()


class UpdateState(StrEnum):
    """Where an update is (docs/architecture.md, Releasing)."""

    OPEN = "open"  # its evidence was stored
    DECIDED = "decided"  # enough board members approved
    LEASE = "lease"
    LOADED = "loaded"  # live, unconfirmed
    CONFIRMED = "confirmed"
    UNDONE = "undone"  # a rollback or withdraw took it out of force
    DENIED = "denied"  # a board member's signed denial; closes the change request, too
    ABORTED = "aborted"
    EXPIRED = "expired"  # the board's deadline passed, by the service's clock


class UpdateStep(Model):
    """One step that an update took. ``actor`` is a person only where that person signed it, else a client's key id."""

    state: UpdateState
    actor: str
    reason: str
    at: datetime


class OrderRequest(Model):
    """Body of ``POST /v1/constitution/orders``: what a person orders a run to do, before the run obeys.

    ``attempt`` names the place in the run that asks: asking again from there changes nothing, from anywhere else the
    order has been used. Without ``envelope`` it is an unsigned message, and ``reason`` is what it says.
    """

    update_id: UpdateId
    workflow: WorkflowRef
    attempt: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    order: str
    step: str | None = None
    envelope: Envelope | None = None
    reason: Reason | None = None


class OrderRecord(Model):
    """An order that was accepted. ``person`` is who signed it; null: nobody did.

    ``digest`` is what the order is kept by: of who signed and what was signed.
    """

    digest: Checksum
    person: str | None
    order: str
    step: str | None
    reason: str
    accepted_at: datetime


class UpdateRecord(Model):
    """An update's steps and orders as constitution-service recorded them, oldest first.

    ``state`` is the last step's.
    """

    update_id: UpdateId
    change_request: ChangeRequestId
    state: UpdateState
    steps: tuple[UpdateStep, ...]
    orders: tuple[OrderRecord, ...] = ()


class DecidedRequest(Model):
    """Body of ``POST /v1/constitution/updates/{update_id}/decided``: the signed approvals that suffice."""

    change_request: ChangeRequestId
    approvals: Annotated[tuple[Envelope, ...], Field(min_length=1, max_length=64)]


class CloseRequest(Model):
    """Body of ``POST /v1/constitution/updates/{update_id}/abort`` and ``/expire``; names whose update it is."""

    change_request: ChangeRequestId
    reason: Reason


class DenialRecord(Model):
    """Answer of ``POST /v1/constitution/change-requests/{id}/denial``: the request is closed for ever."""

    change_request: ChangeRequestId
    denied_by: str
    reason: str
    closed_at: datetime


class ReissueRecord(Model):
    """Answer of ``POST /v1/constitution/change-requests/{id}/reissue``: who has signed so far, of how many it takes."""

    change_request: ChangeRequestId
    checksum: Checksum
    signed_by: tuple[str, ...]
    needed: int


class AuditEvent(Model):
    """Body of ``POST /v1/constitution/audit``: a decision or refusal that did not pass through the service itself.

    ``id`` makes the call idempotent. The service turns it into OCSF and sends it through its outbox.
    """

    id: str
    update_id: str
    workflow: WorkflowRef
    activity: str  # e.g. ``update.rejected``, ``decision.refused``, ``update.completed``
    success: bool
    actor: str = ""
    message: str
    details: dict[str, Any] = Field(default_factory=dict)


class ReadyReport(Model):
    """Answer of ``/readyz``: ``ok``, ``degraded`` or ``unavailable``, and why, per dependency."""

    status: str
    checks: dict[str, str]
