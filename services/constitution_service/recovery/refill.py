"""Refills a lost Kafka topic or artifact store from PostgreSQL and the legal archive."""

import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import asyncpg

from adapters.artifact_store import blob_path, document_path, signature_path
from adapters.event_log import KafkaEventLog
from adapters.kafka_producer import FencedProducer, ensure_topics
from constitution.api import EvidenceRecord
from constitution.checksum import checksum_of
from constitution.errors import ConflictError
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context
from services.constitution_service.delivery import record_writer
from services.constitution_service.generations.sources import BEGINNING
from services.constitution_service.tables import outbox, relay_lease, releases

ARCHIVE_ROOT = "docs/legal/constitution"
_ATTACHMENT = re.compile(r"/evidence/([0-9]+\.junit\.xml|watch-[0-9a-f]{12}\.json)$")
STOP_FIRST = "stop every process of constitution-service, then this again"


@dataclass(frozen=True, slots=True)
class Refilled:
    """The objects that were refilled, and those that are nowhere."""

    objects: int
    lacking: tuple[str, ...] = ()


async def resend(context: Context, kafka: dict[str, str], *, apply: bool) -> Refilled:
    """Send every event that the topic has lost again: under its own id, in order of generations.

    Args:
        context: of the service, no process of which may run: its relay and this would fence each other.
        kafka: connection part of librdkafka's configuration.
        apply: False only counts.

    Raises:
        ConflictError: a relay works; or the topic holds later events than those that it lacks, so that what is sent
            now could not be in order.
        UnavailableError: Kafka or PostgreSQL did not answer; the same call goes on where this one ended.
    """
    topic = KafkaEventLog(kafka, context.names)
    missing = await _missing(context, topic)
    if not apply or not missing:
        return Refilled(len(missing))
    producer = FencedProducer(kafka, context.names.transactional_id())
    try:
        await _alone(context)
        await ensure_topics(kafka, [context.names.topic_updated(), context.names.topic_audit()])
        await producer.open()
        missing = await _missing(context, topic)  # again: another sender is fenced by now
        for generation, group in groupby(missing, key=lambda row: row["generation"]):
            await _alone(context)
            await _send(context, producer, [outbox.of_row(row) for row in group], generation)
    finally:
        producer.close()
        async with context.database.connection() as connection:
            await relay_lease.give_back(connection, context.environment, context.process)
    return Refilled(len(missing))


async def _missing(context: Context, topic: KafkaEventLog) -> list[asyncpg.Record]:
    """Return the rows of the outbox that were delivered and are not on the topic, in the order they must be sent."""
    present = {event["event_id"] for event in await topic.find_newer(0, BEGINNING)}
    async with context.database.connection() as connection:
        rows = await connection.fetch(
            """
            SELECT id, generation, event_id, tenant, key, headers::text AS headers, value FROM outbox
            WHERE environment = $1 AND stream = 'updated' AND delivered_at IS NOT NULL ORDER BY generation, id
            """,
            context.environment,
        )
    missing = [row for row in rows if row["event_id"] not in present]
    newest = max((row["generation"] for row in rows if row["event_id"] in present), default=0)
    if missing and newest > missing[0]["generation"]:
        raise ConflictError(
            f"the topic holds generation {newest} and lacks {missing[0]['generation']}: nothing can be put before it",
            hint="delete the topic, then this again: all of it is sent anew",
        )
    return missing


async def _alone(context: Context) -> None:
    """Take or keep the right to relay.

    Raises:
        ConflictError: another process has it.
    """
    async with context.database.connection() as connection:
        if await relay_lease.renew(connection, context.environment, context.process) is None:
            raise ConflictError("a process of constitution-service relays", hint=STOP_FIRST)


async def _send(context: Context, producer: FencedProducer, rows: list[outbox.Pending], generation: int) -> None:
    positions = await producer.send([row.message(context.names.topic_updated()) for row in rows])
    async with context.database.transaction() as connection:
        await connection.executemany(
            "INSERT INTO redeliveries (outbox_id, kafka_partition, kafka_offset) VALUES ($1, $2, $3)",
            [(row.id, place.partition, place.offset) for row, place in zip(rows, positions, strict=True)],
        )
        await audit_events.decision(
            connection,
            context,
            activity="event.redelivered",
            actor="operator",
            message=f"the events of generation {generation} were sent again to a topic that had lost them",
            details={"generation": generation, "offsets": [place.offset for place in positions]},
        )


async def refill_store(context: Context, archive: Path | None, *, apply: bool) -> Refilled:
    """Write documents, signatures and records from PostgreSQL, and attachments of evidence from the legal archive.

    Args:
        context: of the service.
        archive: the git repository; without it attachments are only looked for.
        apply: False only counts.

    Raises:
        UnavailableError: PostgreSQL or the store did not answer; the same call goes on.
    """
    wanted: dict[str, tuple[str, bytes]] = {}  # path -> digest, bytes
    async with context.database.connection() as connection:
        for row in await connection.fetch(
            "SELECT checksum, document FROM artifacts WHERE environment = $1", context.environment
        ):
            wanted[document_path(row["checksum"])] = (row["checksum"], row["document"])
        for row in await connection.fetch(
            "SELECT checksum, digest, signature FROM artifact_signatures WHERE environment = $1", context.environment
        ):
            wanted[signature_path(row["checksum"], row["digest"])] = (row["digest"], row["signature"])
        records = await connection.fetch("SELECT record FROM evidence WHERE environment = $1", context.environment)
        highest = await releases.highest_generation(connection, context.environment)
    attachments = {suite.junit for row in records for suite in EvidenceRecord.model_validate_json(row["record"]).suites}
    archived = {} if archive is None else await _archived(archive)
    lacking = [
        digest
        for digest in sorted(attachments - set(archived))
        if await context.store.get(blob_path(digest), digest) is None
    ]
    # All that the archive keeps of evidence: the watch's samples are named by no row of PostgreSQL.
    wanted |= {blob_path(digest): (digest, data) for digest, data in archived.items()}
    written = 0
    for path, (digest, data) in wanted.items():
        if await context.store.get(path, digest) is None:
            written += 1
            if apply:
                await context.store.put(path, data)
    for generation in range(1, highest + 1):
        written += await record_writer.rewrite(context, generation, apply=apply)
    return Refilled(written, tuple(lacking))


async def _archived(repository: Path) -> dict[str, bytes]:
    from adapters.archive import GitArchive  # noqa: PLC0415 - only the worker's packages bring git, and only this needs it

    archive = GitArchive(repository)
    found = {}
    for path in await archive.paths(ARCHIVE_ROOT):
        if _ATTACHMENT.search(path):
            data = await archive.read(path)
            if data is not None:
                found[checksum_of(data)] = data
    return found
