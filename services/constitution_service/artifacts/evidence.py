"""Evidence of the regression gate, under the checksum of its RFC 8785 bytes; attachments in the artifact store."""

import asyncio

import rfc8785

from adapters.artifact_store import blob_path
from adapters.gate_junit import UnreadableJUnitError, read_junit
from adapters.postgres import Connection
from constitution.api import EvidenceRecord, LoadRequest
from constitution.checksum import checksum_of
from constitution.errors import EvidenceError, Issue, NotFoundError
from constitution.policy.document import Constitution
from constitution.trust.attestation import GatePredicate
from constitution.trust.evidence_rules import Supported, problems
from services.constitution_service.artifacts import attestations
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context
from services.constitution_service.errors import NotPossibleError
from services.constitution_service.tables import leases, updates


def evidence_bytes(record: EvidenceRecord) -> bytes:
    """Return the canonical bytes whose checksum is the evidence digest."""
    return rfc8785.dumps(record.model_dump(mode="json"))


async def put(context: Context, record: EvidenceRecord, client: str) -> str:
    """Store evidence and return its digest; the same record again changes nothing.

    Raises:
        NotPossibleError: it is of another environment.
        UpdateClosedError: it names an update of another change request, or of one that was denied or is used up.
    """
    if record.environment != context.environment:
        raise NotPossibleError(f"this is {context.environment}, the evidence is for {record.environment}")
    data = evidence_bytes(record)
    digest = checksum_of(data)
    async with context.database.transaction() as connection:
        if record.update_id is not None:
            await leases.lock(connection, context.environment)
            await updates.opened(connection, record, client)
        added = await connection.fetchval(
            """
            INSERT INTO evidence (environment, digest, record) VALUES ($1, $2, $3)
            ON CONFLICT (environment, digest) DO NOTHING RETURNING digest
            """,
            context.environment,
            digest,
            data,
        )
        if added is not None:
            await audit_events.decision(
                connection,
                context,
                activity="evidence.stored",
                actor=client,
                message=f"evidence {digest} for {record.checksum} was stored",
                details={"evidence": digest, "checksum": record.checksum, "change_request": record.change_request},
            )
    return digest


async def get(connection: Connection, environment: str, digest: str) -> EvidenceRecord:
    """Return stored evidence.

    Raises:
        NotFoundError: there is none under this digest.
    """
    data = await connection.fetchval(
        "SELECT record FROM evidence WHERE environment = $1 AND digest = $2", environment, digest
    )
    if data is None:
        raise NotFoundError(f"there is no evidence {digest}")
    return EvidenceRecord.model_validate_json(data)


async def put_blob(context: Context, data: bytes) -> str:
    """Store an attachment and return its digest; the same bytes again change nothing."""
    digest = await asyncio.to_thread(checksum_of, data)
    await context.store.put(blob_path(digest), data)
    return digest


async def get_blob(context: Context, digest: str) -> bytes:
    """Return an attachment's exact bytes.

    Raises:
        NotFoundError: there is none, or what lies there is something else.
    """
    data = await context.store.get(blob_path(digest), digest)
    if data is None:
        raise NotFoundError(f"there is no blob {digest}")
    return data


async def check(context: Context, connection: Connection, request: LoadRequest, document: Constitution) -> None:
    """Check that the evidence a load names is of these very bytes, and that everything in it passed (invariant 5).

    An assessor must have signed it, and each suite's JUnit file must be in the store and say the same.

    Raises:
        EvidenceError: with every reason.
    """
    if request.test_evidence is None:
        raise EvidenceError(
            "an update needs test_evidence", hint="run the regression gate, store its evidence, name its digest"
        )
    try:
        record = await get(connection, context.environment, request.test_evidence)
    except NotFoundError as error:
        raise EvidenceError(error.message, hint="store the evidence first") from error
    supported = Supported(
        environment=context.environment,
        checksum=request.checksum,
        version=document.version,
        previous=None if document.previous is None else document.previous.checksum,
        change_request=request.change_request,
    )
    issues = list(problems(record, supported))
    said = await attestations.verified(connection, context, evidence=request.test_evidence)
    if GatePredicate.of(record, request.test_evidence) not in said:
        message = "no assessor of the trust policy has signed that it saw this"
        issues.append(Issue(code="evidence-unattested", path="/attestation", message=message))
    for suite in record.suites:
        issues += await _junit_issues(context, suite)
    if issues:
        raise EvidenceError(f"the evidence {request.test_evidence} does not support this load", issues=issues)


async def _junit_issues(context: Context, suite: EvidenceRecord.Suite) -> list[Issue]:
    path = f"/suites/{suite.name}/junit"
    data = await context.store.get(blob_path(suite.junit), suite.junit)
    if data is None:
        return [Issue(code="evidence-junit", path=path, message=f"the store has no {suite.junit}")]
    try:
        junit = await asyncio.to_thread(read_junit, data)
    except UnreadableJUnitError as error:
        return [Issue(code="evidence-junit", path=path, message=str(error))]
    counted = ("tests", "failures", "errors", "skipped", "served")
    return [
        Issue(code="evidence-junit", path=path, message=f"its {name} is {found}, the evidence says {claimed}")
        for name in counted
        if (found := getattr(junit, name)) != (claimed := getattr(suite, name))
    ]
