"""Artifacts: a document's exact bytes and the detached signatures that count, stored once, for ever.

Stored is what the trust policy counts: for each person one signature of each kind (OpenPGP, Sigstore). More may be
added later, none is ever taken away. Bytes are written to the artifact store first and then committed to PostgreSQL,
which holds a copy, so that a lost or vandalised store is repaired from it and never blocks a release (invariant 8).
"""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from adapters.artifact_store import document_path, signature_path
from adapters.postgres import Connection
from constitution.api import Artifact
from constitution.checksum import checksum_of
from constitution.errors import InvalidDocumentError, Issue, NotFoundError, UnavailableError, UntrustedError
from constitution.policy.document import parse
from constitution.release import Kind
from services.constitution_service.artifacts import poisoned
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context
from services.constitution_service.tables.clock import now_of
from signatures.detect import detect
from signatures.verify import MAX_SIGNATURES, SignatureReport, verify_document

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Counted:
    """A signature file that counts: whose, and of which kind."""

    digest: str
    data: bytes
    persons: frozenset[str]
    kind: str


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """What is stored under a checksum."""

    checksum: str
    version: str
    document: bytes
    signatures: tuple[bytes, ...]
    storage_uri: str


async def push(context: Context, data: bytes, signatures: Sequence[bytes], client: str) -> tuple[Artifact, bool]:
    """Store a document and its signatures; True if the document is new.

    Raises:
        InvalidDocumentError: with every problem of the document; or it is poisoned and not reissued.
        UntrustedError: no signature is one that the trust policy counts; with what is wrong with each.
        UnavailableError: the store did not take a new document, or PostgreSQL did not; pushing again is safe.
    """
    document = await asyncio.to_thread(parse, data)
    if document.environment != context.environment:
        raise InvalidDocumentError(
            f"this is {context.environment}; the constitution is for {document.environment}",
            issues=[environment_issue(context.environment, document.environment)],
        )
    checksum = checksum_of(data)
    async with context.database.connection() as connection:
        moment = await now_of(connection)
        await poisoned.require_pushable(connection, context, checksum, document.version, moment)
    given, issues = await asyncio.to_thread(_counted, context, data, signatures, moment)
    if not given:
        raise UntrustedError(
            "no signature of this document counts",
            issues=issues,
            hint="have a maintainer of the trust policy sign exactly these bytes",
        )
    await _store(context, checksum, data, given)
    uri = context.store.uri(document_path(checksum))
    async with context.database.transaction() as connection:
        created = await connection.fetchval(
            """
            INSERT INTO artifacts (environment, checksum, version, document, storage_uri) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (environment, checksum) DO NOTHING RETURNING checksum
            """,
            context.environment,
            checksum,
            document.version,
            data,
            uri,
        )
        stored = await read_signatures(connection, context.environment, checksum)
        known, _ = await asyncio.to_thread(_counted, context, data, stored, moment)
        added = _additional(known, given)[: max(0, MAX_SIGNATURES - len(stored))]  # readers read no more
        await connection.executemany(
            """
            INSERT INTO artifact_signatures (environment, checksum, digest, signature) VALUES ($1, $2, $3, $4)
            ON CONFLICT DO NOTHING
            """,
            [(context.environment, checksum, signature.digest, signature.data) for signature in added],
        )
        signers = tuple(sorted(frozenset().union(*(s.persons for s in [*known, *added]))))
        if created is not None or added:
            await audit_events.decision(
                connection,
                context,
                activity="artifact.pushed",
                actor=client,
                message=f"{document.version} {checksum}, signed by {', '.join(signers)}, was stored",
                details={"checksum": checksum, "version": document.version, "signers": list(signers)},
            )
    needed = context.trust.thresholds.for_document(Kind.UPDATE, first=document.previous is None)
    artifact = Artifact(checksum=checksum, version=document.version, signers=signers, needed=needed, storage_uri=uri)
    return artifact, created is not None


async def _store(context: Context, checksum: str, data: bytes, signatures: Sequence[Counted]) -> None:
    """Put bytes into the artifact store; what PostgreSQL has already does not wait for a store that is down or damaged.

    Raises:
        UnavailableError: the store did not take an artifact that is new.
    """
    try:
        await context.store.put(document_path(checksum), data)
        for signature in signatures:
            await context.store.put(signature_path(checksum, signature.digest), signature.data)
    except UnavailableError as error:
        async with context.database.connection() as connection:
            known = await connection.fetchval(
                "SELECT true FROM artifacts WHERE environment = $1 AND checksum = $2", context.environment, checksum
            )
        if not known:
            raise
        _log.warning("artifact_store_not_healed", checksum=checksum, reason=error.message)


def environment_issue(ours: str, theirs: str) -> Issue:
    """Return the issue of a document that is for another environment."""
    return Issue(
        code="environment",
        path="/environment",
        message=f"the constitution is for {theirs}; this is {ours}",
        hint="draft one for this environment",
    )


def report_issues(report: SignatureReport) -> list[Issue]:
    """Return what is wrong with signatures as issues."""
    return [
        Issue(code="signature", path=f"/signatures/{finding.index}", message=finding.detail)
        for finding in report.findings
        if not finding.counted
    ]


def _counted(
    context: Context, data: bytes, signatures: Sequence[bytes], moment: datetime
) -> tuple[list[Counted], list[Issue]]:
    counted: list[Counted] = []
    issues: list[Issue] = []
    for index, signature in enumerate(dict.fromkeys(signatures)):
        report = verify_document(data, [signature], context.trust, moment)
        if report.signers:
            counted.append(Counted(checksum_of(signature), signature, frozenset(report.signers), detect(signature)))
        issues += [issue.model_copy(update={"path": f"/signatures/{index}"}) for issue in report_issues(report)]
    return counted, issues


def _additional(known: Sequence[Counted], given: Sequence[Counted]) -> list[Counted]:
    covered = {(person, signature.kind) for signature in known for person in signature.persons}
    added: list[Counted] = []
    for signature in given:
        brought = {(person, signature.kind) for person in signature.persons}
        if not brought <= covered:
            added.append(signature)
            covered |= brought
    return added


async def read_signatures(connection: Connection, environment: str, checksum: str) -> list[bytes]:
    """Return the stored signature files of a document, oldest first."""
    rows = await connection.fetch(
        "SELECT signature FROM artifact_signatures WHERE environment = $1 AND checksum = $2 ORDER BY id",
        environment,
        checksum,
    )
    return [row["signature"] for row in rows]


async def get(connection: Connection, environment: str, checksum: str) -> StoredArtifact:
    """Return what is stored under a checksum.

    Raises:
        NotFoundError: nothing is.
    """
    row = await connection.fetchrow(
        "SELECT version, document, storage_uri FROM artifacts WHERE environment = $1 AND checksum = $2",
        environment,
        checksum,
    )
    if row is None:
        raise NotFoundError(f"there is no artifact {checksum}", hint="push the document and its signature")
    return StoredArtifact(
        checksum=checksum,
        version=row["version"],
        document=row["document"],
        signatures=tuple(await read_signatures(connection, environment, checksum)),
        storage_uri=row["storage_uri"],
    )


async def verify(context: Context, document: bytes, signatures: Sequence[bytes], moment: datetime) -> SignatureReport:
    """Verify signatures off the event loop: the first Sigstore bundle costs a second of imports."""
    return await asyncio.to_thread(verify_document, document, signatures, context.trust, moment)


async def read_bytes(context: Context, checksum: str) -> bytes:
    """Return a document's exact bytes from the artifact store, and repair a missing or wrong object there.

    While the store is down or cannot be repaired, PostgreSQL's copy is served.

    Raises:
        NotFoundError: nothing is stored under the checksum.
    """
    try:
        data = await context.store.get(document_path(checksum), checksum)
    except UnavailableError as error:
        _log.warning("artifact_store_down", checksum=checksum, reason=error.message)
        data = None
    if data is not None:
        return data
    async with context.database.connection() as connection:
        stored = await get(connection, context.environment, checksum)
    await _store(context, checksum, stored.document, ())
    return stored.document


def encoded(signatures: Sequence[bytes]) -> tuple[str, ...]:
    """Return signature files as base64 text."""
    return tuple(base64.b64encode(signature).decode() for signature in signatures)
