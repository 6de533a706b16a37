"""Rebuilds the releases that PostgreSQL lost when it was restored from an older backup.

Believed is only what a pinned service key has signed: the record in the artifact store first, which holds everything;
else the statement in an event on Kafka or in a Redis value, with what can be said without the rest. Rows are appended,
in order, under their old generation, event id and effective time. A standing is taken from its signed record alone.
Nothing is written unless all of it can be: a gap must be named by a person as lost.
"""

import asyncio
import base64
from dataclasses import dataclass, field
from uuid import uuid4

from pydantic import ValidationError

from adapters.artifact_store import document_path, signature_path
from adapters.event_log import KafkaEventLog
from constitution import events
from constitution.checksum import checksum_of
from constitution.errors import ContentError, Issue, UntrustedError
from constitution.release import CurrentConstitution, Envelope, ReleasePredicate, Standing
from services.constitution_service import releases
from services.constitution_service.context import Context
from services.constitution_service.current import parse_value
from services.constitution_service.records import (
    EventRecord,
    ReleaseRecord,
    StandingFile,
    read_release_record,
    read_standing,
    record_path,
)
from services.constitution_service.witness import BEGINNING
from signatures.current import verify_current
from signatures.statements import verify_release

STORE_AT_ONCE = 32  # reads of the artifact store under way


@dataclass(frozen=True, slots=True)
class OnTopic:
    """Where an event lies."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A release that PostgreSQL does not know, with what its row is rebuilt from.

    Args:
        said: what its statement says.
        record: its record; made up of what is left where the store has none.
        where: what proves it.
        document: its bytes; None for a withdraw, and where they are nowhere.
        signatures: its signature files by digest, as far as they were found.
    """

    said: ReleasePredicate
    record: ReleaseRecord
    where: str
    document: bytes | None
    signatures: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written.

    Args:
        highest: generation that PostgreSQL knows.
        lost: releases to rebuild, in order.
        gone: generations that were live and of which nothing is left, in order.
        standings: of rebuilt and of known releases, in the order in which they were recorded.
        topic: where each event lies, by its id.
        problems: what keeps the plan from being carried out.
        notes: what a person should know.
    """

    highest: int
    lost: tuple[Lost, ...]
    gone: tuple[int, ...]
    standings: tuple[StandingFile, ...]
    topic: dict[str, OnTopic]
    problems: tuple[Issue, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Heard:
    """What was heard of one generation."""

    statement: Envelope | None = None
    record: ReleaseRecord | None = None
    value: CurrentConstitution | None = None
    told: list[tuple[events.UpdatedEvent, str]] = field(default_factory=list)
    where: list[str] = field(default_factory=list)


class Recovery:
    """Hears every witness, and says what can be rebuilt.

    Args:
        context: of the service.
        kafka: connection part of librdkafka's configuration.
    """

    def __init__(self, context: Context, kafka: dict[str, str]) -> None:
        self._context = context
        self._topic = KafkaEventLog(kafka, context.names)
        self._some = asyncio.Semaphore(STORE_AT_ONCE)

    async def plan(self) -> Plan:
        """Look at everything, change nothing.

        Raises:
            UnavailableError: a system does not answer; nothing is decided on half of what is known.
        """
        async with self._context.database.connection() as connection:
            highest = await releases.highest_generation(connection, self._context.environment)
        heard: dict[int, _Heard] = {}
        topic = await self._hear_kafka(heard, highest)
        await self._hear_redis(heard, highest)
        await self._hear_store(heard, highest)
        lost, gone, problems = [], [], []
        for generation in range(highest + 1, max(heard, default=highest) + 1):
            if generation not in heard:
                gone.append(generation)
                continue
            found = await self._lost(generation, heard[generation])
            problems += _missing(found)
            lost.append(found)
        standings = await self._standings(max(heard, default=highest))
        return Plan(
            highest=highest,
            lost=tuple(lost),
            gone=tuple(gone),
            standings=standings,
            topic=topic,
            problems=tuple(problems),
            notes=tuple(_notes(lost, standings)),
        )

    async def _hear_kafka(self, heard: dict[int, _Heard], highest: int) -> dict[str, OnTopic]:
        found = await self._topic.find_newer(0, BEGINNING)
        topic: dict[str, OnTopic] = {}
        for event in found:
            if event["generation"] <= highest:
                topic.setdefault(event["event_id"], OnTopic(event["partition"], event["offset"]))
                continue
            try:
                value = events.UpdatedEvent.model_validate_json(event["raw"])
                said = await asyncio.to_thread(verify_release, value.statement, self._context.trust)
            except (ValidationError, ContentError):
                continue  # a stranger's
            if (said.environment, said.generation) != (self._context.environment, value.generation):
                continue
            topic.setdefault(event["event_id"], OnTopic(event["partition"], event["offset"]))
            entry = heard.setdefault(said.generation, _Heard())
            entry.statement = value.statement
            if value.tenant not in {known.tenant for known, _ in entry.told}:
                entry.told.append((value, event["event_id"]))
                entry.where.append(f"Kafka, offset {event['offset']}")
        return topic

    async def _hear_redis(self, heard: dict[int, _Heard], highest: int) -> None:
        for ring in self._context.site.environment.rings():
            raw = await self._context.cache.read(ring)
            value = None if raw is None else parse_value(raw)
            if value is None or value.generation <= highest:
                continue
            try:
                await asyncio.to_thread(
                    verify_current,
                    value,
                    trust=self._context.trust,
                    environment=self._context.environment,
                    ring=ring,
                )
            except UntrustedError:
                continue
            entry = heard.setdefault(value.generation, _Heard())
            entry.statement, entry.value = value.statement, value
            entry.where.append(f"Redis, ring {ring}")

    async def _hear_store(self, heard: dict[int, _Heard], highest: int) -> None:
        generation = highest + 1
        while True:
            data = await self._read(generation, "release")
            if data is not None:
                try:
                    record, _ = read_release_record(data, self._context.trust, self._context.environment, generation)
                except UntrustedError:
                    pass
                else:
                    entry = heard.setdefault(generation, _Heard())
                    entry.statement, entry.record = record.statement, record
                    entry.where.append("artifact store")
            if generation not in heard and generation > max(heard, default=highest):
                return
            generation += 1

    async def _read(self, generation: int, name: str) -> bytes | None:
        path = record_path(self._context.names, self._context.environment, generation, name)
        async with self._some:
            return await self._context.store.read(path)

    async def _lost(self, generation: int, heard: _Heard) -> Lost:
        if heard.statement is None:
            raise UntrustedError(f"generation {generation} has no statement")
        said = verify_release(heard.statement, self._context.trust)
        record = heard.record or _made_up(heard, said, heard.statement, self._context.site.environment.tenants)
        files: dict[str, bytes] = {}
        document: bytes | None = None
        if said.checksum is not None:
            document = await self._document(said.checksum, heard.value)
            for digest in said.signatures:
                data = await self._signature(said.checksum, digest, heard.value)
                if data is not None:
                    files[digest] = data
        return Lost(said, record, ", ".join(dict.fromkeys(heard.where)), document, files)

    async def _document(self, checksum: str, value: CurrentConstitution | None) -> bytes | None:
        async with self._context.database.connection() as connection:
            known: bytes | None = await connection.fetchval(
                "SELECT document FROM artifacts WHERE environment = $1 AND checksum = $2",
                self._context.environment,
                checksum,
            )
        stored = known or await self._context.store.get(document_path(checksum), checksum)
        if stored is None and value is not None and value.document is not None:
            return value.document.encode()
        return stored

    async def _signature(self, checksum: str, digest: str, value: CurrentConstitution | None) -> bytes | None:
        async with self._context.database.connection() as connection:
            known: bytes | None = await connection.fetchval(
                """
                SELECT signature FROM artifact_signatures
                WHERE environment = $1 AND checksum = $2 AND digest = $3
                """,
                self._context.environment,
                checksum,
                digest,
            )
        stored = known or await self._context.store.get(signature_path(checksum, digest), digest)
        if stored is None and value is not None:
            given = [base64.b64decode(text) for text in value.signatures]
            return next((data for data in given if checksum_of(data) == digest), None)
        return stored

    async def _standings(self, top: int) -> tuple[StandingFile, ...]:
        async with self._context.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT generation, standing FROM standings WHERE environment = $1", self._context.environment
            )
        known = {(row["generation"], row["standing"]) for row in rows}
        wanted = [
            (generation, standing.value)
            for generation in range(1, top + 1)
            for standing in Standing
            if (generation, standing.value) not in known
        ]
        found = await asyncio.gather(*(self._standing(generation, name) for generation, name in wanted))
        return tuple(sorted((one for one in found if one is not None), key=lambda one: one.recorded_at))

    async def _standing(self, generation: int, name: str) -> StandingFile | None:
        data = await self._read(generation, name)
        if data is None:
            return None
        try:
            return read_standing(data, self._context.trust, self._context.environment, generation, Standing(name))
        except UntrustedError:
            return None


def _made_up(heard: _Heard, said: ReleasePredicate, statement: Envelope, tenants: tuple[str, ...]) -> ReleaseRecord:
    """Return a record of what events or a Redis value still tell; approvals and papers are not among it."""
    told = heard.told[0][0] if heard.told else None
    own = heard.told[0][1].partition(":")[0] if heard.told else str(uuid4())
    written = {value.tenant: (value, event_id) for value, event_id in heard.told}
    records = []
    for tenant in dict.fromkeys((*written, *tenants)):
        value, event_id = written.get(tenant) or (_event(said, statement, tenant, told), f"{own}:{tenant}")
        records.append(
            EventRecord(
                tenant=tenant,
                event_id=event_id,
                key=tenant,
                headers=events.updated_headers(value, event_id),
                value=value.model_dump_json(),
            )
        )
    return ReleaseRecord(
        statement=statement,
        previous_generation=None,
        event_id=own,
        change_request=None,
        reason=f"rebuilt from its signed statement: {told.summary}" if told else "rebuilt from its signed statement",
        approvers=told.approvers if told else (),
        approvals=(),
        workflow={"workflow_id": told.workflow_id if told else "", "run_id": told.run_id if told else ""},
        filed=None,
        evidence=None,
        events=tuple(records),
    )


def _event(
    said: ReleasePredicate, statement: Envelope, tenant: str, told: events.UpdatedEvent | None
) -> events.UpdatedEvent:
    if told is not None:
        return told.model_copy(update={"tenant": tenant})
    return events.UpdatedEvent(
        tenant=tenant,
        environment=said.environment,
        rings=said.rings,
        generation=said.generation,
        kind=said.kind,
        version=said.version,
        checksum=said.checksum,
        previous=said.previous,
        effective_at=said.effective_at,
        summary="rebuilt from its signed statement",
        approvers=(),
        update_id=said.update_id,
        workflow_id="",
        run_id="",
        statement=statement,
    )


def _missing(found: Lost) -> list[Issue]:
    if found.said.checksum is None:
        return []
    where = f"generation {found.said.generation}"
    push = "constitution push --path DOCUMENT --signature SIGNATURE: the legal archive has both; then this again"
    if found.document is None:
        return [Issue(code="document", path=where, message=f"{found.said.checksum} is nowhere", hint=push)]
    return [
        Issue(code="signature", path=where, message=f"signature {digest} is nowhere", hint=push)
        for digest in found.said.signatures
        if digest not in found.signatures
    ]


def _notes(lost: list[Lost], standings: tuple[StandingFile, ...]) -> list[str]:
    told = {standing.generation for standing in standings}
    notes = [
        f"generation {one.said.generation} has no signed standing: it counts as unconfirmed, and may be rolled back"
        for one in lost
        if one.said.generation not in told
    ]
    return notes + [
        f"generation {one.said.generation} is rebuilt without its approvals: undoing it takes a quorum of its own"
        for one in lost
        if one.said.approvals and not one.record.approvals
    ]
