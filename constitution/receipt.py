"""The receipt of a release: its whole story, as constitution-service signs it once (invariant 9).

The service signs what its own records say, each signed part verified again at that moment. What it cannot see, the
files of the archive's folder, stands apart under ``archive``, as the report of the client that archived them.
Receipts of an environment are numbered, and each names the one before. How one is checked:
signatures/receipt_verify.py.
"""

from typing import Annotated

from pydantic import AwareDatetime, Field, StringConstraints

from constitution.checksum import Checksum
from constitution.environment import Identifier
from constitution.model import Model, is_unsaid
from constitution.release import DeliveredEvent, Envelope, Kind, StandingRecord, UpdateId, Verdict
from constitution.trust.fleet import Discovered, FleetReport, TargetReport

RECEIPT_PREDICATE = "urn:somaagenthub:constitution:receipt:v1"
"""``predicateType`` of a receipt."""

RECEIPT = "receipt.json"
RECEIPT_MANIFEST = "receipt-manifest.json"
MANIFEST = "manifest.json"
MANIFEST_SIGNATURE = "manifest.dsse.json"
UNLISTED = frozenset({RECEIPT, RECEIPT_MANIFEST, MANIFEST, MANIFEST_SIGNATURE})
"""Files of a folder that a receipt's manifest cannot list: they are written after it."""

MAX_FILES = 2000  # of one manifest; a release has some twenty
_SEGMENT = r"[A-Za-z0-9_@+][A-Za-z0-9._@+-]{0,199}"

FilePath = Annotated[str, StringConstraints(pattern=rf"^{_SEGMENT}(/{_SEGMENT}){{0,7}}$")]
"""A file below a release's folder; it leads nowhere else."""

FolderName = Annotated[str, StringConstraints(pattern=rf"^{_SEGMENT}$")]
Sequence = Annotated[int, Field(ge=1, le=2**53 - 1)]
Generation = Annotated[int, Field(ge=1, le=2**53 - 1)]


class ArchivedFile(Model):
    """One file, relative to its release's folder; ``size`` in bytes."""

    path: FilePath
    sha256: Checksum
    size: Annotated[int, Field(ge=0, le=2**53 - 1)]


class LaterFile(ArchivedFile):
    """A file that came into the folder of an earlier release after that one's receipt: how it was undone."""

    folder: FolderName


class ReceiptManifest(Model):
    """Every file of a release's folder but ``UNLISTED``, in RFC 8785 bytes."""

    environment: Identifier
    generation: Generation
    files: Annotated[tuple[ArchivedFile, ...], Field(min_length=1, max_length=MAX_FILES)]
    later: Annotated[tuple[LaterFile, ...], Field(max_length=MAX_FILES)] = ()


class ReceiptRequest(Model):
    """Body of ``POST /v1/constitution/releases/{generation}/receipt``: what the caller has archived, or is about to."""

    manifest: ReceiptManifest


class SealedReceipt(Model):
    """A receipt, and the manifest that it names."""

    envelope: Envelope
    manifest: ReceiptManifest


class ReceiptDocuments(Model):
    """What a receipt will name, and a release does not carry; to be archived before it is sealed."""

    attestations: tuple[Envelope, ...]
    orders: tuple[Envelope, ...]
    reissues: tuple[Envelope, ...] = ()


class SignatureFact(Model):
    """A signature file of the document; ``person`` is null where it counted for nobody when the receipt was sealed."""

    sha256: Checksum
    person: str | None


class ChangeRequestFact(Model):
    """The signed change request: ``sha256`` is of its envelope."""

    id: str
    author: str
    reason: str
    sha256: Checksum


class DecisionFact(Model):
    """A decision or order that the release went live by, by its envelope's digest.

    ``person`` is null, and the rest empty, where it did not verify any more when the receipt was sealed: a key was
    revoked, or its owner has left the trust policy.
    """

    sha256: Checksum
    person: str | None
    decision: str
    reason: str


class AttestationFact(Model):
    """What an assessor signed about this release or its evidence, by its envelope's digest."""

    sha256: Checksum
    what: str  # gate, sync, watch
    assessor: str
    at: AwareDatetime


class TargetsFact(Model):
    """What every target obeyed, by the newest attestation of a sync; ``at`` is when the service took it.

    ``discovered`` says it of each target source;
    ``fleet`` of more targets than are listed; ``targets`` are then the first of those that did not obey.
    """

    attestation: Checksum
    at: AwareDatetime
    targets: tuple[TargetReport, ...]
    fleet: FleetReport | None = Field(default=None, exclude_if=is_unsaid)
    discovered: tuple[Discovered, ...] = Field(default=(), exclude_if=is_unsaid)


class WatchFact(Model):
    """What the watch came to, by its newest attestation."""

    attestation: Checksum
    evidence: Checksum
    verdict: Verdict
    decided_at: AwareDatetime


class OrderFact(Model):
    """An order to the run; ``sha256`` is of its envelope, null with ``person`` where nobody signed."""

    sha256: Checksum | None
    person: str | None
    verb: str
    step: str | None
    reason: str
    at: AwareDatetime


class UndoFact(Model):
    """A release and why: which one this release undid, or which one undid it."""

    generation: Generation
    kind: Kind
    version: str | None
    checksum: Checksum | None
    reason: str
    by: tuple[str, ...]


class AuditFact(Model):
    """How far the audit stream reached when the receipt was sealed."""

    sequence: Sequence
    hash: Checksum


class ArchiveFact(Model):
    """The archive's folder as ``reported_by`` told it; the service has not seen these files."""

    reported_by: str
    manifest: Checksum
    files: int
    histories: tuple[ArchivedFile, ...]


class ReceiptPredicate(Model):
    """The story of one release; ``previous_receipt`` is the digest of the envelope before, null for the first."""

    environment: Identifier
    sequence: Sequence
    previous_receipt: Checksum | None
    sealed_at: AwareDatetime
    generation: Generation
    kind: Kind
    rings: tuple[Identifier, ...]
    version: str | None
    checksum: Checksum | None
    previous: Checksum | None
    previous_generation: Generation | None
    update_id: UpdateId
    reason: str
    effective_at: AwareDatetime
    statement: Checksum
    signatures: tuple[SignatureFact, ...]
    change_request: ChangeRequestFact | None
    decisions: tuple[DecisionFact, ...]
    reissues: Annotated[tuple[DecisionFact, ...], Field(exclude_if=lambda value: not value)] = ()
    evidence: Checksum | None
    attestations: tuple[AttestationFact, ...]
    event_id: str
    topic: str
    events: tuple[DeliveredEvent, ...]
    targets: TargetsFact | None
    watch: WatchFact | None
    orders: tuple[OrderFact, ...]
    standings: tuple[StandingRecord, ...]
    undoes: UndoFact | None
    undone_by: UndoFact | None
    audit_head: AuditFact
    archive: ArchiveFact
