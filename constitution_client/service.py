"""The typed client of constitution-service: one method per route, errors of the domain, nothing else.

Used by the command line, by the worker's activities and by tests. Guarantees:

- every call has a time limit; answers are capped at ``MAX_ANSWER`` bytes; redirects are not followed;
- a call is repeated only when repeating is harmless (reads, content-addressed writes, calls that carry an
  ``Idempotency-Key``), only when the service did not answer or said 503, and at most ``ATTEMPTS`` times;
- each call that changes something carries a token of its own, minted for exactly the scope it needs;
- bytes fetched by checksum are compared with that checksum before they are returned.

It verifies no signatures: a consumer calls ``signatures.current.verify_current`` on the answer before it obeys.
"""

import base64
import binascii
from collections.abc import AsyncIterator, Sequence
from urllib.parse import quote

import rfc8785
from pydantic import BaseModel

from constitution.api import (
    Artifact,
    ArtifactSignatures,
    AuditEvent,
    ChangeRequestRecord,
    CloseRequest,
    DecidedRequest,
    DenialRecord,
    EvidenceRecord,
    Lease,
    LeaseHolder,
    LeaseRelease,
    LeaseRequest,
    LoadRequest,
    LoadResult,
    OrderRecord,
    OrderRequest,
    ReadyReport,
    ReissueRecord,
    StandingRequest,
    UpdateRecord,
    ValidateRequest,
    ValidateResult,
)
from constitution.checksum import checksum_of
from constitution.errors import (
    UnavailableError,
)
from constitution.receipt import ReceiptDocuments, ReceiptRequest, SealedReceipt
from constitution.release import CurrentConstitution, Envelope, Release
from constitution_client.transport import LOAD_TIMEOUT, Transport, digest_of, read, read_list, same
from signatures.dsse import envelope_digest

RELEASES_AT_ONCE = 50  # each carries its statement and approvals: 6 KiB of JSON, 15 in memory


class ConstitutionServiceClient(Transport):
    """Async client of constitution-service; close it, or use it as an async context manager.

    Args:
        base_url: e.g. ``http://127.0.0.1:8080``; no path.
        client_key: mints the tokens of changing calls; None for a client that only reads.
        environment: bound into every token, so that one for staging is worth nothing in production.
        clock: the time tokens are minted at.

    Raises:
        InvalidRequestError: ``base_url`` is no http(s) address.
    """

    # -- artifacts ---------------------------------------------------------------------------------------------

    async def push(self, document: bytes, signatures: Sequence[bytes]) -> Artifact:
        """Store a document and its detached signatures; the same bytes again give the same answer.

        Raises:
            InvalidDocumentError: the document breaks its schema; all issues are listed.
            UntrustedError: the signatures do not meet the trust policy.
            ForbiddenError, UnavailableError: as for every call.
        """
        answer = await self._call(
            "POST", "/v1/constitution/artifacts", scope="artifacts:write", files=_multipart(document, signatures)
        )
        return read(answer, Artifact)

    async def artifact(self, checksum: str) -> bytes:
        """Return the exact bytes of a document.

        Raises:
            NotFoundError: there is no such artifact.
            UntrustedError: the bytes served are not those the checksum names.
        """
        return await self._content(f"/v1/constitution/artifacts/{quote(checksum, safe=':')}", checksum)

    async def artifact_signatures(self, checksum: str) -> list[bytes]:
        """Return the detached signature files of a document.

        Raises:
            NotFoundError: there is no such artifact.
        """
        answer = await self._call("GET", f"/v1/constitution/artifacts/{quote(checksum, safe=':')}/signatures")
        try:
            return [base64.b64decode(s, validate=True) for s in read(answer, ArtifactSignatures).signatures]
        except binascii.Error as error:
            raise UnavailableError("constitution-service answered with signatures that are not base64") from error

    # -- change requests, validation ---------------------------------------------------------------------------

    async def create_change_request(self, envelope: Envelope) -> ChangeRequestRecord:
        """Store a signed change request.

        Raises:
            UntrustedError: the signature is not its author's.
            ConflictError: another change request has this id.
        """
        answer = await self._call(
            "POST", "/v1/constitution/change-requests", scope="change-requests:write", body=envelope
        )
        return read(answer, ChangeRequestRecord)

    async def change_request(self, change_request_id: str) -> ChangeRequestRecord:
        """Return a stored change request.

        Raises:
            NotFoundError: there is no such change request.
        """
        answer = await self._call("GET", f"/v1/constitution/change-requests/{quote(change_request_id, safe='')}")
        return read(answer, ChangeRequestRecord)

    async def validate(self, checksum: str) -> ValidateResult:
        """Ask whether a stored artifact could go live now. Changes nothing.

        Raises:
            NotFoundError: there is no such artifact.
        """
        answer = await self._call(
            "POST",
            "/v1/constitution/validate",
            scope=self._if_has_key("artifacts:write"),
            body=ValidateRequest(checksum=checksum),
        )
        return read(answer, ValidateResult)

    async def validate_files(self, document: bytes, signatures: Sequence[bytes]) -> ValidateResult:
        """Ask whether these files could go live now. Stores and changes nothing."""
        answer = await self._call(
            "POST",
            "/v1/constitution/validate",
            scope=self._if_has_key("artifacts:write"),
            files=_multipart(document, signatures),
        )
        return read(answer, ValidateResult)

    async def deny(self, change_request_id: str, envelope: Envelope) -> DenialRecord:
        """Close a change request for ever, on a board member's signed denial; again changes nothing.

        Raises:
            NotApprovedError: the envelope is no denial of this request by a board member.
            ConflictError: a release of it is confirmed.
        """
        path = f"/v1/constitution/change-requests/{quote(change_request_id, safe='')}/denial"
        return read(await self._call("POST", path, scope="lease:write", body=envelope), DenialRecord)

    async def reissue(self, change_request_id: str, envelope: Envelope) -> ReissueRecord:
        """Store a board member's override of *poisoned* for a change request; again changes nothing.

        Raises:
            NotApprovedError: it does not count, and why.
            ContentError: what is asked for was never poisoned.
        """
        path = f"/v1/constitution/change-requests/{quote(change_request_id, safe='')}/reissue"
        return read(await self._call("POST", path, scope="change-requests:write", body=envelope), ReissueRecord)

    # -- updates -----------------------------------------------------------------------------------------------

    async def update(self, update_id: str) -> UpdateRecord:
        """Return every step that an update took.

        Raises:
            NotFoundError: the service does not know it.
        """
        return read(await self._call("GET", f"/v1/constitution/updates/{quote(update_id, safe='')}"), UpdateRecord)

    async def decided(self, update_id: str, request: DecidedRequest) -> UpdateRecord:
        """Note that the board has approved an update; again changes nothing.

        Raises:
            NotFoundError: the service does not know the update.
            UpdateClosedError: it has ended.
            NotApprovedError: the approvals do not suffice.
        """
        return await self._to_update(update_id, "decided", request)

    async def abort_update(self, update_id: str, request: CloseRequest) -> UpdateRecord:
        """End an update that is not live; one that has ended stays as it ended.

        Raises:
            NotFoundError: the service does not know the update.
            ConflictError: it is live, or belongs to another change request.
        """
        return await self._to_update(update_id, "abort", request)

    async def expire_update(self, update_id: str, request: CloseRequest) -> UpdateRecord:
        """End an undecided update whose deadline has passed by the service's clock.

        Raises:
            NotFoundError: the service does not know the update.
            ConflictError: the board has decided, or has time left.
        """
        return await self._to_update(update_id, "expire", request)

    async def _to_update(self, update_id: str, step: str, body: BaseModel) -> UpdateRecord:
        path = f"/v1/constitution/updates/{quote(update_id, safe='')}/{step}"
        return read(await self._call("POST", path, scope="lease:write", body=body), UpdateRecord)

    async def accept_order(self, request: OrderRequest) -> OrderRecord:
        """Have an order to a run accepted, once; again from the same attempt changes nothing.

        Raises:
            NotApprovedError: it does not count, and why.
            OrderUsedError: it was obeyed before.
        """
        return read(await self._call("POST", "/v1/constitution/orders", scope="lease:write", body=request), OrderRecord)

    # -- evidence ----------------------------------------------------------------------------------------------

    async def put_evidence(self, record: EvidenceRecord) -> str:
        """Store evidence under the checksum of its RFC 8785 bytes; returns that digest.

        Raises:
            UntrustedError: the service names it by another digest than this record has.
        """
        answer = await self._call("POST", "/v1/constitution/evidence", scope="evidence:write", body=record)
        return same(digest_of(answer), _evidence_digest(record))

    async def evidence(self, digest: str) -> EvidenceRecord:
        """Return stored evidence.

        Raises:
            NotFoundError: there is none under this digest.
            UntrustedError: the record served is not the one that the digest names.
        """
        answer = await self._call("GET", f"/v1/constitution/evidence/{quote(digest, safe=':')}")
        record = read(answer, EvidenceRecord)
        same(_evidence_digest(record), digest)
        return record

    async def put_attestation(self, envelope: Envelope) -> str:
        """Store what an assessor signed; returns the digest of its envelope.

        Raises:
            UntrustedError: no assessor of the service's trust policy signed it.
        """
        answer = await self._call("POST", "/v1/constitution/attestations", scope="evidence:write", body=envelope)
        return same(digest_of(answer), envelope_digest(envelope))

    async def attestations(self, *, evidence: str | None = None, generation: int | None = None) -> list[Envelope]:
        """Return the stored attestations about a record of evidence, or about a release; unverified, oldest first."""
        query = f"evidence={quote(evidence, safe=':')}" if evidence is not None else f"generation={generation}"
        return read_list(await self._call("GET", f"/v1/constitution/attestations?{query}"), Envelope)

    async def put_blob(self, data: bytes) -> str:
        """Store an attachment of evidence (a JUnit file) under its checksum; returns that digest.

        Raises:
            UntrustedError: the service names it by another checksum than these bytes have.
        """
        answer = await self._call("POST", "/v1/constitution/blobs", scope="evidence:write", content=data)
        return same(digest_of(answer), checksum_of(data))

    async def blob(self, digest: str) -> bytes:
        """Return an attachment's exact bytes.

        Raises:
            NotFoundError: there is none under this digest.
            UntrustedError: the bytes served are not those the digest names.
        """
        return await self._content(f"/v1/constitution/blobs/{quote(digest, safe=':')}", digest)

    # -- lease -------------------------------------------------------------------------------------------------

    async def acquire_lease(self, request: LeaseRequest, key: str) -> Lease:
        """Take the environment's lease, and the token that fences every earlier holder.

        Args:
            request: who wants it, and for which kind; a rollback pre-empts an update.
            key: ``Idempotency-Key``: ``<environment>/<update_id>/<step>``.

        Raises:
            LeaseHeldError: another run holds it; the message names it.
        """
        answer = await self._call("POST", "/v1/constitution/lease", scope="lease:write", body=request, key=key)
        return read(answer, Lease)

    async def release_lease(self, request: LeaseRelease, key: str) -> None:
        """Give the lease back; with an old token nothing happens."""
        await self._call("DELETE", "/v1/constitution/lease", scope="lease:write", body=request, key=key)

    async def lease(self) -> LeaseHolder | None:
        """Return who holds the lease, or None while nobody does; with its token if our key has the scope for it."""
        answer, problem = await self._send_retrying(
            "GET", "/v1/constitution/lease", scope=self._if_has_key("lease:write")
        )
        if problem is not None:
            error, code = problem
            if answer.status == 404 and code:  # the service's own 404, not that of a wrong address
                return None
            raise error
        return read(answer, Lease if b'"fencing_token"' in answer.body else LeaseHolder)

    # -- releases ----------------------------------------------------------------------------------------------

    async def load(self, request: LoadRequest, key: str) -> LoadResult:
        """Put an artifact live in rings; checked in full by the service, inside its transaction.

        Args:
            request: what, where, by whose approval; ``expected_generation`` and ``fencing_token`` guard against
                anything that happened since the caller looked.
            key: ``Idempotency-Key``: ``<environment>/<update_id>/<step>``.

        Raises:
            StaleGenerationError, LeaseLostError: somebody was faster.
            NotApprovedError, EvidenceError, UntrustedError, InvalidDocumentError: refused, with all issues.
        """
        answer = await self._call(
            "POST", "/v1/constitution/load", scope="load:write", body=request, key=key, timeout=LOAD_TIMEOUT
        )
        return read(answer, LoadResult)

    async def current(self, ring: str = "default", min_generation: int = 0) -> CurrentConstitution | None:
        """Return the ring's current release, or None before generation 1; what PostgreSQL says now, from no cache.

        Args:
            ring: name of the ring.
            min_generation: a cache that holds an older generation is bypassed.
        """
        answer, problem = await self._send_retrying(
            "GET",
            "/v1/constitution",
            params={"ring": ring, "min_generation": str(min_generation)},
            headers={"Cache-Control": "no-cache"},
        )
        if problem is not None:
            error, code = problem
            if code == "no-constitution":
                return None
            raise error
        return read(answer, CurrentConstitution)

    async def releases(self) -> list[Release]:
        """Return every release of the environment, newest first, with standing and delivery."""
        return [release async for release in self.iter_releases()]

    async def iter_releases(self, at_once: int = RELEASES_AT_ONCE) -> AsyncIterator[Release]:
        """Yield every release of the environment, newest first; no more than ``at_once`` of them are held."""
        params = {"limit": str(at_once)}
        while True:
            page = read_list(await self._call("GET", "/v1/constitution/releases", params=params), Release)
            for release in page:
                yield release
            if len(page) < at_once or page[-1].generation <= 1:
                return
            params["before"] = str(page[-1].generation)

    async def release(self, generation: int) -> Release:
        """Return one release.

        Raises:
            NotFoundError: there is no such generation.
        """
        return read(await self._call("GET", f"/v1/constitution/releases/{generation:d}"), Release)

    async def record_standing(self, generation: int, request: StandingRequest, key: str) -> Release:
        """Append a standing of a release.

        Args:
            generation: of which release.
            request: the standing; ``confirmed`` only for the current generation, with the current token.
            key: ``Idempotency-Key``.

        Raises:
            LeaseLostError, ConflictError: the token is old, or the release is no longer current.
        """
        path = f"/v1/constitution/releases/{generation:d}/standing"
        return read(await self._call("POST", path, scope="standing:write", body=request, key=key), Release)

    async def receipt(self, generation: int) -> SealedReceipt:
        """Return the receipt of a release, and the manifest that it names; not verified.

        Raises:
            NotFoundError: none is sealed yet.
        """
        return read(await self._call("GET", f"/v1/constitution/releases/{generation:d}/receipt"), SealedReceipt)

    async def receipt_documents(self, generation: int) -> ReceiptDocuments:
        """Return the attestations and signed orders that the receipt of a release will name.

        Raises:
            NotFoundError: there is no such generation.
        """
        path = f"/v1/constitution/releases/{generation:d}/receipt/documents"
        return read(await self._call("GET", path), ReceiptDocuments)

    async def seal_receipt(self, generation: int, request: ReceiptRequest) -> SealedReceipt:
        """Have the receipt of a release sealed over these files, once; again with the same files changes nothing.

        Raises:
            UnsettledError: nothing is recorded of what became of the release.
            ReceiptSealedError: it is sealed over other files.
        """
        path = f"/v1/constitution/releases/{generation:d}/receipt"
        return read(await self._call("POST", path, scope="audit:write", body=request), SealedReceipt)

    async def audit(self, event: AuditEvent) -> None:
        """Record a decision or refusal in the audit stream; the event's id makes it idempotent."""
        await self._call("POST", "/v1/constitution/audit", scope="audit:write", body=event)

    async def audit_head(self) -> Envelope:
        """Return the newest signed head of the audit stream; not verified.

        Raises:
            NotFoundError: nothing was audited yet.
        """
        return read(await self._call("GET", "/v1/constitution/audit/head"), Envelope)

    async def ready(self) -> ReadyReport:
        """Return what the service says about its own dependencies, also when it is not ready."""
        answer, _ = await self._send("GET", "/readyz")
        return read(answer, ReadyReport)


def _multipart(document: bytes, signatures: Sequence[bytes]) -> list[tuple[str, tuple[str, bytes, str]]]:
    parts = [("document", ("constitution.json", document, "application/json"))]
    parts += [
        ("signature", (f"signature-{number}", data, "application/octet-stream"))
        for number, data in enumerate(signatures, start=1)
    ]
    return parts


def _evidence_digest(record: EvidenceRecord) -> str:
    return checksum_of(rfc8785.dumps(record.model_dump(mode="json")))
