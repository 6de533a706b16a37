"""Rebuilds the releases that PostgreSQL lost when it was restored from an older backup.

Only releases that a pinned service key has signed count: the record in the artifact store first, which holds
everything; else the statement in an event on Kafka or in a Redis value, without the rest. Rows are appended, in order,
under their old generation, event id and effective time. A standing is taken from its signed record alone. Nothing is
written unless all of it can be: a person must name a gap as lost. The proof of a release is read as the generation
guard reads it (generations/sources.py).
"""

import asyncio
import base64
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from adapters.artifact_store import document_path, signature_path
from adapters.postgres import Connection
from constitution import events
from constitution.checksum import checksum_of
from constitution.errors import Issue
from constitution.release import CurrentConstitution, Envelope, ReleasePredicate, Standing
from services.constitution_service.context import Context
from services.constitution_service.generations.records import EventRecord, ReleaseRecord, StandingFile
from services.constitution_service.generations.sources import BEGINNING, SignedRelease
from services.constitution_service.releasing.standings import FOLLOWS
from services.constitution_service.tables import releases


@dataclass(frozen=True, slots=True)
class OnTopic:
    """The position of an event, and the checksum of its value: an untrusted writer can repeat an id alone."""

    partition: int
    offset: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Lost:
    """A release that PostgreSQL does not know, with what its row is rebuilt from.

    Args:
        release: its statement.
        record: its record; made up of what is left where the store has none.
        where: where it is signed.
        document: its bytes; None for a withdraw, and where they are nowhere.
        signatures: its signature files by digest, as far as they were found.
        kept: whether the store has the record.
    """

    release: ReleasePredicate
    record: ReleaseRecord
    where: str
    document: bytes | None
    signatures: dict[str, bytes]
    kept: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows to write.

    Args:
        highest: generation that PostgreSQL knows.
        lost: releases to rebuild, in order.
        gone: generations that were live and of which nothing is left, in order; the last may be known to people alone.
        standings: of rebuilt and of known releases, in the order in which they were recorded.
        topic: where events lie, by id.
        problems: what keeps the plan from being carried out.
        notes: what a person should know.
    """

    highest: int
    lost: tuple[Lost, ...]
    gone: tuple[int, ...]
    standings: tuple[StandingFile, ...]
    topic: Mapping[str, Collection[OnTopic]]
    problems: tuple[Issue, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Evidence:
    """The proof that one generation was live, and the data that is left of it."""

    release: ReleasePredicate
    statement: Envelope
    record: ReleaseRecord | None = None
    value: CurrentConstitution | None = None
    events: list[EventRecord] = field(default_factory=list)
    where: list[str] = field(default_factory=list)


class Recovery:
    """Reads the signed evidence of every system, and says what can be rebuilt.

    Args:
        context: of the service.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def plan(self, declared: Collection[int] = ()) -> Plan:
        """Look at everything, change nothing.

        Args:
            declared: generations that a person says were live. Those that follow the highest one that is proved,
                without a gap, are gone, although no system knows of them any more.

        Raises:
            UnavailableError: a system does not answer; nothing is decided on partial evidence.
        """
        async with self._context.database.connection() as connection:
            highest = await releases.highest_generation(connection, self._context.environment)
        evidence, topic = await self._read(highest)
        lost: list[Lost] = []
        gone: list[int] = []
        problems: list[Issue] = []
        for generation in range(highest + 1, max(evidence, default=highest) + 1):
            if generation not in evidence:
                gone.append(generation)
                continue
            found = await self._lost(evidence[generation])
            problems += _missing(found)
            lost.append(found)
        beyond = max(evidence, default=highest) + 1
        while beyond in declared:
            gone.append(beyond)
            beyond += 1
        standings = await self._standings(lost)
        return Plan(
            highest=highest,
            lost=tuple(lost),
            gone=tuple(gone),
            standings=standings,
            topic=topic,
            problems=tuple(problems),
            notes=tuple(_notes(lost, standings)),
        )

    async def _read(self, highest: int) -> tuple[dict[int, _Evidence], dict[str, list[OnTopic]]]:
        """Return what proves each generation above ``highest``, and where every event lies, by its id."""
        sources = self._context.sources
        sent = await sources.on_topic(0, BEGINNING)
        topic: dict[str, list[OnTopic]] = {}
        for event in sent:
            position = OnTopic(event["partition"], event["offset"], checksum_of(event["raw"].encode()))
            topic.setdefault(event["event_id"], []).append(position)
        newer = [event for event in sent if event["generation"] > highest]
        found = await asyncio.to_thread(lambda: list(sources.signed(newer)))
        found += [one async for one in sources.in_redis()]
        for generation in await sources.recorded(highest):
            record = await sources.record(generation)
            found += [record] if record is not None else []
        evidence: dict[int, _Evidence] = {}
        for one in found:
            if one.release.generation > highest:
                self._take(evidence.setdefault(one.release.generation, _Evidence(one.release, one.statement)), one)
        return evidence, topic

    def _take(self, evidence: _Evidence, found: SignedRelease) -> None:
        evidence.release, evidence.statement = found.release, found.statement  # the record's, where there is one
        evidence.where.append(found.where)
        evidence.value = found.value or evidence.value  # of the rest is taken what has the right checksum
        evidence.record = found.record or evidence.record
        if found.event is not None:
            self._take_event(evidence, *found.event)

    def _take_event(self, evidence: _Evidence, event: Mapping[str, Any], value: events.UpdatedEvent) -> None:
        """Take an event as it was sent, if it says nothing but what its statement says, to a tenant that exists."""
        event_id = event["event_id"]
        own, _, tenant = event_id.partition(":")
        same = ("rings", "kind", "version", "checksum", "previous", "effective_at", "update_id")
        if (
            tenant == value.tenant
            and tenant in self._context.config.environment.tenants
            and tenant not in {known.tenant for known in evidence.events}
            and _is_uuid(own)
            and all(known.event_id.startswith(f"{own}:") for known in evidence.events)
            and all(getattr(value, name) == getattr(evidence.release, name) for name in same)
        ):
            headers = events.updated_headers(value, event_id)
            evidence.events.append(
                EventRecord(tenant=tenant, event_id=event_id, key=tenant, headers=headers, value=event["raw"])
            )

    async def _lost(self, evidence: _Evidence) -> Lost:
        release = evidence.release
        record = evidence.record or _made_up(evidence, self._context.config.environment.tenants)
        files: dict[str, bytes] = {}
        document: bytes | None = None
        if release.checksum is not None:
            document = await self._document(release.checksum, evidence.value)
            for digest in release.signatures:
                data = await self._signature(release.checksum, digest, evidence.value)
                if data is not None:
                    files[digest] = data
        where = ", ".join(dict.fromkeys(evidence.where))
        return Lost(release, record, where, document, files, kept=evidence.record is not None)

    async def _document(self, checksum: str, value: CurrentConstitution | None) -> bytes | None:
        async with self._context.database.connection() as connection:
            known: bytes | None = await connection.fetchval(
                "SELECT document FROM artifacts WHERE environment = $1 AND checksum = $2",
                self._context.environment,
                checksum,
            )
        stored = known or await self._context.store.get(document_path(checksum), checksum)
        if stored is None and value is not None and value.document is not None:
            given = value.document.encode(errors="replace")
            return given if checksum_of(given) == checksum else None
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
            given = map(_decoded, value.signatures)
            return next((data for data in given if checksum_of(data) == digest), None)
        return stored

    async def _standings(self, lost: Iterable[Lost]) -> tuple[StandingFile, ...]:
        async with self._context.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT generation, checksum FROM releases WHERE environment = $1", self._context.environment
            )
            known = await latest_standings(connection, self._context.environment)
        checksums: dict[int, str | None] = {row["generation"]: row["checksum"] for row in rows}
        checksums |= {one.release.generation: one.release.checksum for one in lost}
        wanted = [
            (generation, standing)
            for generation in checksums
            for standing in Standing
            if standing in FOLLOWS[known.get(generation)]
        ]
        found = await asyncio.gather(*(self._context.sources.standing(*one) for one in wanted))
        return that_follow(
            known, (one for one in found if one is not None and one.checksum == checksums[one.generation])
        )


async def latest_standings(connection: Connection, environment: str) -> dict[int, Standing]:
    """Return the latest standing of each release that has one."""
    rows = await connection.fetch(
        "SELECT generation, standing FROM standings WHERE environment = $1 ORDER BY id", environment
    )
    return {row["generation"]: Standing(row["standing"]) for row in rows}


def that_follow(known: Mapping[int, Standing], found: Iterable[StandingFile]) -> tuple[StandingFile, ...]:
    """Return, in the order in which they were recorded, the standings that may follow what is known.

    A confirmation that the backup lacks does not make good a release that was undone since.
    """
    latest: dict[int, Standing] = dict(known)
    following: list[StandingFile] = []
    for one in sorted(found, key=lambda one: one.recorded_at):
        if one.standing in FOLLOWS[latest.get(one.generation)]:
            latest[one.generation] = one.standing
            following.append(one)
    return tuple(following)


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:
        return b""


def _made_up(evidence: _Evidence, tenants: tuple[str, ...]) -> ReleaseRecord:
    """Return a record of what is left: the statement, and events that say the same. Nobody signed who approved."""
    release, statement = evidence.release, evidence.statement
    own = evidence.events[0].event_id.partition(":")[0] if evidence.events else str(uuid4())
    sent = {event.tenant: event for event in evidence.events}
    return ReleaseRecord(
        statement=statement,
        previous_generation=None,
        event_id=own,
        change_request=None,
        reason="rebuilt from its signed statement",
        approvers=(),
        approvals=(),
        workflow={"workflow_id": "", "run_id": ""},
        signed_request=None,
        evidence=None,
        events=tuple(sent.get(tenant) or _event(release, statement, tenant, f"{own}:{tenant}") for tenant in tenants),
    )


def _event(release: ReleasePredicate, statement: Envelope, tenant: str, event_id: str) -> EventRecord:
    value = events.UpdatedEvent(
        tenant=tenant,
        environment=release.environment,
        rings=release.rings,
        generation=release.generation,
        kind=release.kind,
        version=release.version,
        checksum=release.checksum,
        previous=release.previous,
        effective_at=release.effective_at,
        summary="rebuilt from its signed statement",
        approvers=(),
        update_id=release.update_id,
        workflow_id="",
        run_id="",
        statement=statement,
    )
    headers = events.updated_headers(value, event_id)
    return EventRecord(tenant=tenant, event_id=event_id, key=tenant, headers=headers, value=value.model_dump_json())


def _missing(found: Lost) -> list[Issue]:
    if found.release.checksum is None:
        return []
    where = f"generation {found.release.generation}"
    push = "push the document and its signatures, which the legal archive has; then this again"
    if found.document is None:
        return [Issue(code="document", path=where, message=f"{found.release.checksum} is nowhere", hint=push)]
    return [
        Issue(code="signature", path=where, message=f"signature {digest} is nowhere", hint=push)
        for digest in found.release.signatures
        if digest not in found.signatures
    ]


def _notes(lost: list[Lost], standings: tuple[StandingFile, ...]) -> list[str]:
    known = {standing.generation for standing in standings}
    notes = [
        f"generation {one.release.generation} has no signed standing: it counts as unconfirmed, and may be rolled back"
        for one in lost
        if one.release.generation not in known
    ]
    return notes + [
        f"generation {one.release.generation} is rebuilt without its approvals: undoing it takes a quorum of its own"
        for one in lost
        if one.release.approvals and not one.record.approvals
    ]
