"""Writes the signed record of each release and standing into the artifact store, for the relay and to refill a store.

A record that the store has not taken yet is tried again until it has; a release never waits for the store longer than
the relay's head start. A different signed record is never overwritten: it proves that a generation was used before
(invariant 3).
"""

import asyncio
import json

import structlog

from adapters.postgres import Connection
from constitution.errors import UntrustedError
from constitution.release import Envelope, Release, Standing
from services.constitution_service.context import Context
from services.constitution_service.errors import RecordConflictError
from services.constitution_service.generations.records import (
    EventRecord,
    ReleaseRecord,
    StandingFile,
    read_release_record,
    read_standing,
    record_path,
    sign_record,
)
from services.constitution_service.tables import releases

RECORDS_A_ROUND = 50  # bounds what one round holds in memory

_log = structlog.get_logger(__name__)


async def round_of_records(context: Context) -> int:
    """Write the records that the store has not taken yet, oldest first; return how many.

    Raises:
        UnavailableError: PostgreSQL or the store did not answer.
    """
    async with context.database.connection() as connection:
        rows = await connection.fetch(
            """
            SELECT r.generation, w.name FROM releases r
            CROSS JOIN LATERAL (
                SELECT 'release' AS name
                UNION ALL SELECT standing FROM standings
                WHERE environment = r.environment AND generation = r.generation
            ) w
            WHERE r.environment = $1 AND NOT EXISTS (
                SELECT FROM stored_records s
                WHERE s.environment = r.environment AND s.generation = r.generation AND s.name = w.name)
            ORDER BY r.generation LIMIT $2
            """,
            context.environment,
            RECORDS_A_ROUND,
        )
    written = 0
    for row in rows:
        try:
            await store(context, row["generation"], row["name"])
        except RecordConflictError as error:
            _log.error("record_conflict", generation=row["generation"], reason=error.message)
        else:
            written += 1
    return written


async def store(context: Context, generation: int, name: str = "release") -> None:
    """Write one record, and remember that the store has it.

    Raises:
        UnavailableError: PostgreSQL or the store did not answer.
        RecordConflictError: the store holds another signed record of the same generation.
    """
    async with context.database.connection() as connection:
        release = await releases.read_release(connection, context.environment, generation)
        if release is None:
            return
        record: ReleaseRecord | StandingFile
        record = await _of_release(connection, release) if name == "release" else _of_standing(release, name)
    await _write(context, record, record_path(context.names, context.environment, generation, name), generation)
    async with context.database.connection() as connection:
        await connection.execute(
            "INSERT INTO stored_records (environment, generation, name) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            context.environment,
            generation,
            name,
        )


async def rewrite(context: Context, generation: int, *, apply: bool) -> int:
    """Rewrite the records of a generation that the store lacks or holds damaged, also those marked as stored.

    Returns:
        How many.

    Raises:
        UnavailableError: PostgreSQL or the store did not answer.
        RecordConflictError: the store holds another signed record of the same generation.
    """
    async with context.database.connection() as connection:
        release = await releases.read_release(connection, context.environment, generation)
    if release is None:
        return 0  # lost
    lacking = 0
    for name in ("release", *(entry.standing.value for entry in release.standings)):
        path = record_path(context.names, context.environment, generation, name)
        data = await context.store.read(path)
        if data is None or not await asyncio.to_thread(_is_signed, context, data, generation, name):
            lacking += 1
            if apply:
                await store(context, generation, name)
    return lacking


def _is_signed(context: Context, data: bytes, generation: int, name: str) -> bool:
    try:
        if name == "release":
            read_release_record(data, context.trust, context.environment, generation)
        else:
            read_standing(data, context.trust, context.environment, generation, Standing(name))
    except UntrustedError:
        return False
    return True


async def _write(context: Context, record: ReleaseRecord | StandingFile, path: str, generation: int) -> None:
    data = await asyncio.to_thread(sign_record, record, context.key)
    found = await context.store.read(path)
    if found == data:
        return
    if found is not None:
        try:
            before: ReleaseRecord | StandingFile
            if isinstance(record, StandingFile):
                before = read_standing(found, context.trust, record.environment, generation, record.standing)
            else:
                before, _ = read_release_record(found, context.trust, context.environment, generation)
        except UntrustedError as error:
            _log.error("record_repaired", path=path, reason=error.message)
        else:
            if before == record:
                return  # signed by an earlier key of ours
            raise RecordConflictError(
                f"the artifact store holds another signed record of generation {generation}: {path}",
                hint="two databases have used one artifact store; docs/backup-and-restore.md",
            )
    await context.store.replace(path, data)


async def _of_release(connection: Connection, release: Release) -> ReleaseRecord:
    events = await connection.fetch(
        """
        SELECT tenant, event_id, key, headers::text AS headers, value FROM outbox
        WHERE environment = $1 AND stream = 'updated' AND generation = $2 ORDER BY id
        """,
        release.environment,
        release.generation,
    )
    evidence: bytes | None = None
    if release.evidence is not None:
        evidence = await connection.fetchval(
            "SELECT record FROM evidence WHERE environment = $1 AND digest = $2", release.environment, release.evidence
        )
    signed_request = await connection.fetchval(
        "SELECT envelope::text FROM change_requests WHERE environment = $1 AND id = $2",
        release.environment,
        release.change_request,
    )
    return ReleaseRecord(
        statement=release.statement,
        previous_generation=release.previous_generation,
        event_id=release.event_id,
        change_request=release.change_request,
        reason=release.reason,
        approvers=release.approvers,
        approvals=release.approvals,
        workflow=release.workflow,
        signed_request=None if signed_request is None else Envelope.model_validate_json(signed_request),
        evidence=None if evidence is None else evidence.decode(),
        events=tuple(
            EventRecord(
                tenant=row["tenant"],
                event_id=row["event_id"],
                key=row["key"],
                headers=json.loads(row["headers"]),
                value=row["value"],
            )
            for row in events
        ),
    )


def _of_standing(release: Release, name: str) -> StandingFile:
    entry = next(entry for entry in release.standings if entry.standing.value == name)
    return StandingFile(
        environment=release.environment,
        generation=release.generation,
        checksum=release.checksum,
        standing=entry.standing,
        verdict=entry.verdict,
        reason=entry.reason,
        update_id=entry.update_id,
        recorded_at=entry.recorded_at,
    )
