"""Seals the receipt of a release, once: invariant 9.

No oracle: the caller chooses which release, and reports which files it archived; every other word is read from this
service's records in the transaction that seals, and what was signed is verified again. The report stands apart, in the
caller's name. Sealed for ever: the same report gives the same receipt, another one is refused.
"""

from adapters.postgres import Connection
from constitution.checksum import checksum_of
from constitution.errors import (
    InvalidRequestError,
    NotFoundError,
    NotYetError,
    ReceiptSealedError,
    UnsettledError,
    UntrustedError,
)
from constitution.receipt import (
    ArchiveFact,
    AuditFact,
    ReceiptDocuments,
    ReceiptManifest,
    ReceiptPredicate,
    ReceiptRequest,
    SealedReceipt,
)
from constitution.release import Envelope, Release
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context
from services.constitution_service.releasing import receipt_facts, receipt_store
from services.constitution_service.releasing.receipt_store import ChainEnd, LostReceipt
from services.constitution_service.tables import audit_chain, leases, receipts, releases
from services.constitution_service.tables.clock import now_of
from signatures.dsse import envelope_digest
from signatures.receipts import manifest_bytes, receipt_bytes
from signatures.statements import verify_release


async def one(context: Context, generation: int) -> SealedReceipt:
    """Return the receipt of a release.

    Raises:
        NotFoundError: none is sealed.
    """
    async with context.database.connection() as connection:
        row = await receipts.of_release(connection, context.environment, generation)
    if row is None:
        raise NotFoundError(f"generation {generation} has no receipt yet", hint="constitution releases")
    return _answer(row)


async def documents(context: Context, generation: int) -> ReceiptDocuments:
    """Return the attestations and signed orders that a receipt names.

    Raises:
        NotFoundError: there is no such generation.
    """
    async with context.database.connection() as connection:
        release = await _release(connection, context, generation)
        attested = await receipt_facts.attested(connection, context, release)
        ordered = await receipt_facts.ordered(connection, context, release)
        reissued = await receipt_facts.reissues(connection, context, release)
    return ReceiptDocuments(
        attestations=tuple(item.envelope for item in attested),
        orders=tuple(row.envelope for row in ordered if row.envelope is not None),
        reissues=tuple(reissued),
    )


async def seal(context: Context, generation: int, request: ReceiptRequest, client: str) -> SealedReceipt:
    """Seal the receipt of a release, or return the one that is sealed over the same files.

    Raises:
        NotFoundError: there is no such generation.
        InvalidRequestError: the manifest is of another release.
        UnsettledError: nothing is recorded of what became of it.
        ReceiptSealedError: a receipt is sealed over other files.
        UntrustedError: the stored statement is not what this service signed.
        NotYetError: no head of the audit stream is signed yet, or the key is no longer pinned.
        UnavailableError: PostgreSQL or the artifact store did not answer.
    """
    found = request.manifest
    if (found.environment, found.generation) != (context.environment, generation):
        raise InvalidRequestError(f"the manifest is of generation {found.generation} of {found.environment}")
    lost = await receipt_store.lost(context)
    async with context.database.transaction() as connection:
        await leases.lock(connection, context.environment)  # receipts are numbered one after the other
        release = await _release(connection, context, generation)
        row = await receipts.of_release(connection, context.environment, generation)
        if row is None:
            if (again := _sealed_before_a_restore(lost, release, found)) is not None:
                return again
            last = await receipts.newest(connection, context.environment)
            ends = [ChainEnd() if last is None else ChainEnd(last.sequence, last.digest), *(one.end for one in lost)]
            row = await _seal(connection, context, release, found, client, max(ends, key=lambda end: end.sequence))
        elif row.manifest.encode() != manifest_bytes(found):
            raise ReceiptSealedError(f"generation {generation} has a receipt already, over other files")
    await receipt_store.write(context, row)
    return _answer(row)


def _sealed_before_a_restore(
    lost: tuple[LostReceipt, ...], release: Release, found: ReceiptManifest
) -> SealedReceipt | None:
    """Return the receipt of a release that the database has lost and the store has not: one is sealed once.

    Raises:
        ReceiptSealedError: it is over other files.
    """
    for one in lost:
        receipt = one.receipt
        if (receipt.generation, receipt.statement) != (release.generation, envelope_digest(release.statement)):
            continue
        if receipt.archive.manifest != checksum_of(manifest_bytes(found)):
            raise ReceiptSealedError(f"generation {release.generation} has a receipt already, over other files")
        return SealedReceipt(envelope=one.envelope, manifest=found)
    return None


async def _seal(  # noqa: PLR0917 - private
    connection: Connection, context: Context, release: Release, found: ReceiptManifest, client: str, end: ChainEnd
) -> receipts.ReceiptRow:
    await _require_settled(connection, context, release)
    manifest = manifest_bytes(found)
    envelope = context.key.sign_receipt(await _story(connection, context, release, found, client, end), context.trust)
    data = receipt_bytes(envelope)
    row = receipts.ReceiptRow(
        sequence=end.sequence + 1,
        generation=release.generation,
        previous=end.digest,
        digest=checksum_of(data),
        envelope=data.decode(),
        manifest=manifest.decode(),
    )
    await receipts.append(connection, context.environment, row)
    await audit_events.decision(
        connection,
        context,
        activity="receipt.sealed",
        actor=client,
        message=f"receipt {row.sequence} of generation {release.generation} is {row.digest}",
        update_id=release.update_id,
        details={"generation": release.generation, "sequence": row.sequence, "sha256": row.digest},
    )
    return row


async def _require_settled(connection: Connection, context: Context, release: Release) -> None:
    """Demand that what became of a release is recorded; an undo that a newer one replaced never gets a standing."""
    if release.standing is not None:
        return
    pointers = await releases.read_pointers(connection, context.environment)
    live = any(pointer.generation == release.generation for pointer in pointers.values())
    if live or not release.kind.undoes:
        raise UnsettledError(
            f"nothing is recorded of what became of generation {release.generation}",
            hint="its receipt is sealed when it is confirmed or undone",
        )


async def _story(  # noqa: PLR0917 - private
    connection: Connection, context: Context, release: Release, found: ReceiptManifest, client: str, end: ChainEnd
) -> ReceiptPredicate:
    statement = verify_release(release.statement, context.trust)
    bound = (release.environment, release.generation, release.checksum, release.effective_at)
    if (statement.environment, statement.generation, statement.checksum, statement.effective_at) != bound:
        raise UntrustedError(f"the stored statement of generation {release.generation} is that of another release")
    head = await audit_chain.newest_head(connection, context.environment)
    if head is None:
        raise NotYetError("no head of the audit stream is signed yet", hint="constitution doctor")
    attested = await receipt_facts.attested(connection, context, release)
    return ReceiptPredicate(
        environment=context.environment,
        sequence=end.sequence + 1,
        previous_receipt=end.digest,
        sealed_at=await now_of(connection),
        generation=release.generation,
        kind=release.kind,
        rings=release.rings,
        version=release.version,
        checksum=release.checksum,
        previous=statement.previous,
        previous_generation=release.previous_generation,
        update_id=release.update_id,
        reason=release.reason,
        effective_at=release.effective_at,
        statement=envelope_digest(release.statement),
        signatures=await receipt_facts.signatures(connection, context, statement),
        change_request=await receipt_facts.change_request(connection, context, release),
        decisions=await receipt_facts.decisions(context, release),
        reissues=await receipt_facts.reissue_facts(
            context, release, await receipt_facts.reissues(connection, context, release)
        ),
        evidence=release.evidence,
        attestations=receipt_facts.attestation_facts(attested),
        event_id=release.event_id,
        topic=context.names.topic_updated(),
        events=release.delivery.events,
        targets=receipt_facts.targets(attested, release),
        watch=receipt_facts.watch(attested, release),
        orders=receipt_facts.order_facts(await receipt_facts.ordered(connection, context, release)),
        standings=release.standings,
        undoes=await receipt_facts.undoes(connection, context, release),
        undone_by=await receipt_facts.undone_by(connection, context, release),
        audit_head=AuditFact(sequence=head.sequence, hash=head.hash),
        archive=ArchiveFact(
            reported_by=client,
            manifest=checksum_of(manifest_bytes(found)),
            files=len(found.files),
            histories=tuple(file for file in found.files if file.path.startswith("histories/")),
        ),
    )


def _answer(row: receipts.ReceiptRow) -> SealedReceipt:
    return SealedReceipt(
        envelope=Envelope.model_validate_json(row.envelope),
        manifest=ReceiptManifest.model_validate_json(row.manifest),
    )


async def _release(connection: Connection, context: Context, generation: int) -> Release:
    found = await releases.read_release(connection, context.environment, generation)
    if found is None:
        raise NotFoundError(f"there is no generation {generation}", hint="constitution releases")
    return found
