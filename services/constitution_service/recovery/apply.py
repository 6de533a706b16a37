"""Writes what recovery.py planned: in one transaction, under the lock of the environment's lease, or not at all.

Also fences every holder from before the restore: tokens go past every one that can have been handed out, and
an update that the backup shows as the holder of the lease, or that a rebuilt rollback had undone, is closed for ever.
"""

from uuid import UUID

from pydantic import ValidationError

from adapters.artifact_store import document_path
from adapters.postgres import Connection
from constitution.api import ChangeRequest, LeaseRelease
from constitution.checksum import checksum_of
from constitution.errors import ConflictError, InvalidRequestError, UntrustedError
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context
from services.constitution_service.recovery.plan import Lost, OnTopic, Plan, latest_standings, that_follow
from services.constitution_service.tables import leases, outbox, release_rows, releases, updates
from services.constitution_service.tables.clock import now_of
from services.constitution_service.tables.releases import Pointer
from signatures import dsse
from signatures.statements import CHANGE_REQUEST

TOKENS = 10_000  # more leases than are taken between two backups


async def carry_out(context: Context, plan: Plan, *, gone: frozenset[int], reason: str) -> None:
    """Write a plan.

    Args:
        context: of the service.
        plan: made a moment ago.
        gone: generations that a person has declared lost; exactly those of the plan.
        reason: why; audited.

    Raises:
        InvalidRequestError: the plan has problems, or names other generations as gone; or there is no reason.
        ConflictError: PostgreSQL is not what the plan was made for.
        UnavailableError: PostgreSQL did not answer; nothing was written.
    """
    if plan.problems:
        raise InvalidRequestError("not everything can be rebuilt; nothing was written", issues=plan.problems)
    if not reason.strip():
        raise InvalidRequestError("there is no reason to write down", hint="--reason 'restored the backup of 03:00'")
    if gone != frozenset(plan.gone):
        named = ", ".join(map(str, plan.gone)) or "none"
        raise InvalidRequestError(
            f"the generations of which nothing is left are: {named}",
            hint=" ".join(f"--lost {generation}" for generation in plan.gone) or "leave out --lost",
        )
    async with context.database.transaction() as connection:
        lease = await leases.lock(connection, context.environment)
        highest = await releases.highest_generation(connection, context.environment)
        if highest != plan.highest:
            raise ConflictError(f"the plan was made for generation {plan.highest}; PostgreSQL is at {highest}")
        by_generation = {one.release.generation: one for one in plan.lost}
        for generation in sorted({*by_generation, *plan.gone}):
            if generation in by_generation:
                await _release(connection, context, by_generation[generation])
            else:
                await connection.execute(
                    "INSERT INTO lost_generations (environment, generation, reason) VALUES ($1, $2, $3)",
                    context.environment,
                    generation,
                    reason,
                )
        await _events(connection, context, plan)
        await _standings(connection, context, plan)
        holder = None if lease.held is None else lease.held.update_id
        if lease.held is not None:
            await updates.close(connection, context.environment, lease.held.update_id)
            given_back = LeaseRelease(update_id=lease.held.update_id, fencing_token=lease.held.fencing_token)
            await leases.release(connection, context.environment, given_back)
        token = await connection.fetchval("SELECT max(nextval('fencing_tokens')) FROM generate_series(1, $1)", TOKENS)
        await audit_events.decision(
            connection,
            context,
            activity="service.recovered",
            actor="operator",
            message=f"{len(plan.lost)} releases were rebuilt after generation {plan.highest}: {reason}",
            details={
                "known": plan.highest,
                "rebuilt": sorted(by_generation),
                "lost": list(plan.gone),
                "standings": [f"{one.generation} {one.standing.value}" for one in plan.standings],
                "closed_update": holder,
                "tokens_above": token,
            },
        )


async def _release(connection: Connection, context: Context, lost: Lost) -> None:
    release, record = lost.release, lost.record
    await _artifact(connection, context, lost)
    await _supporting_documents(connection, context, lost)
    pointers = await releases.read_pointers(connection, context.environment)
    before: Pointer | None = max(
        (pointer for ring, pointer in pointers.items() if ring in release.rings),
        key=lambda pointer: pointer.generation,
        default=None,
    )
    await release_rows.append(
        connection,
        release,
        statement=record.statement,
        previous_generation=None if before is None else before.generation,
        event_id=record.event_id,
        change_request=record.change_request,
        reason=record.reason,
        approvers=record.approvers,
        approvals=record.approvals,
        workflow=record.workflow,
    )
    if lost.kept:  # as it was: what lies before a gap may differ, and is no reason to write it again
        await connection.execute(
            "INSERT INTO stored_records (environment, generation, name) VALUES ($1, $2, 'release')",
            release.environment,
            release.generation,
        )
    for event in record.events:
        await outbox.add(
            connection,
            release.environment,
            "updated",
            event_id=event.event_id,
            key=event.key,
            headers=event.headers,
            value=event.value,
            generation=release.generation,
            tenant=event.tenant,
        )
    if release.kind.undoes:
        await updates.close(connection, release.environment, release.update_id)


async def _artifact(connection: Connection, context: Context, lost: Lost) -> None:
    release = lost.release
    if release.checksum is None or lost.document is None:
        return
    await connection.execute(
        """
        INSERT INTO artifacts (environment, checksum, version, document, storage_uri) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (environment, checksum) DO NOTHING
        """,
        release.environment,
        release.checksum,
        release.version,
        lost.document,
        context.store.uri(document_path(release.checksum)),
    )
    await connection.executemany(
        """
        INSERT INTO artifact_signatures (environment, checksum, digest, signature) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING
        """,
        [(release.environment, release.checksum, digest, data) for digest, data in lost.signatures.items()],
    )


async def _supporting_documents(connection: Connection, context: Context, lost: Lost) -> None:
    """Write change request and evidence, each as far as it is what was signed."""
    record = lost.record
    if record.evidence is not None and checksum_of(record.evidence.encode()) == lost.release.evidence:
        await connection.execute(
            "INSERT INTO evidence (environment, digest, record) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            context.environment,
            lost.release.evidence,
            record.evidence.encode(),
        )
    if record.signed_request is not None:
        # The service vouches for it by its signature on the record; its author may have left since.
        try:
            request = ChangeRequest.model_validate(dsse.payload_of(record.signed_request, CHANGE_REQUEST))
        except ValidationError as error:
            raise UntrustedError(
                f"the change request of generation {lost.release.generation} cannot be read"
            ) from error
        await connection.execute(
            """
            INSERT INTO change_requests (environment, id, author, checksum, reason, envelope)
            VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING
            """,
            context.environment,
            request.id,
            request.author,
            request.checksum,
            request.reason,
            record.signed_request.model_dump_json(),
        )


async def _events(connection: Connection, context: Context, plan: Plan) -> None:
    """Mark the events that are on the topic; the relay sends the others, under their old ids and in order."""
    rows = await connection.fetch(
        """
        SELECT id, event_id, value FROM outbox
        WHERE environment = $1 AND stream = 'updated' AND delivered_at IS NULL
        """,
        context.environment,
    )
    there: list[tuple[int, OnTopic]] = []
    for row in rows:
        checksum = checksum_of(row["value"].encode())
        same = [place for place in plan.topic.get(row["event_id"], ()) if place.checksum == checksum]
        there += [(row["id"], place) for place in same[:1]]
    moment = await now_of(connection)
    await connection.executemany(
        "UPDATE outbox SET kafka_partition = $2, kafka_offset = $3, delivered_at = $4 WHERE id = $1",
        [(identity, place.partition, place.offset, moment) for identity, place in there],
    )


async def _standings(connection: Connection, context: Context, plan: Plan) -> None:
    known = await latest_standings(connection, context.environment)  # again: now nobody else writes
    await connection.executemany(
        """
        INSERT INTO standings (environment, generation, standing, verdict, reason, update_id, recorded_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING
        """,
        [
            (
                context.environment,
                one.generation,
                one.standing.value,
                None if one.verdict is None else one.verdict.value,
                one.reason,
                UUID(one.update_id),
                one.recorded_at,
            )
            for one in that_follow(known, plan.standings)
        ],
    )
