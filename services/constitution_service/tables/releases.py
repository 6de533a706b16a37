"""Reads releases with their standing and delivery, and the current release of each ring."""

import base64
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from adapters.postgres import Connection
from constitution.errors import UnavailableError
from constitution.release import (
    CurrentConstitution,
    DeliveredEvent,
    Delivery,
    Envelope,
    Kind,
    Previous,
    Release,
    Standing,
    StandingRecord,
    Verdict,
)

SERVED_WITHIN = timedelta(seconds=10)  # a process without a heartbeat for longer is not counted as serving
FRESH_FOR = timedelta(seconds=2)
"""How long after a read of PostgreSQL began a process may answer from memory without saying so (serving/memory.py)."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """The current release of a ring, without the bytes."""

    generation: int
    kind: Kind
    version: str | None
    checksum: str | None

    @property
    def document(self) -> Previous | None:
        """The document that is live; None after a withdraw."""
        if self.version is None or self.checksum is None:
            return None
        return Previous(version=self.version, checksum=self.checksum)


async def read_pointers(connection: Connection, environment: str) -> dict[str, Pointer]:
    """Return the current release of each ring."""
    rows = await connection.fetch(
        """
        SELECT c.ring, r.generation, r.kind, r.version, r.checksum FROM current_releases c
        JOIN releases r USING (environment, generation) WHERE c.environment = $1
        """,
        environment,
    )
    return {row["ring"]: Pointer(row["generation"], Kind(row["kind"]), row["version"], row["checksum"]) for row in rows}


async def read_pointer(connection: Connection, environment: str, ring: str) -> Pointer | None:
    """Return the current release of one ring, or None before its first."""
    row = await connection.fetchrow(
        """
        SELECT r.generation, r.kind, r.version, r.checksum FROM current_releases c
        JOIN releases r USING (environment, generation) WHERE c.environment = $1 AND c.ring = $2
        """,
        environment,
        ring,
    )
    return None if row is None else Pointer(row["generation"], Kind(row["kind"]), row["version"], row["checksum"])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is current, as of one moment: the highest generation ever given out, and the release of each ring."""

    highest: int
    pointers: dict[str, Pointer]


async def read_snapshot(connection: Connection, environment: str) -> Snapshot:
    """Return what is current in every ring. One statement: no commit falls in between."""
    rows = await connection.fetch(
        """
        WITH highest AS (SELECT greatest(
            (SELECT coalesce(max(generation), 0) FROM releases WHERE environment = $1),
            (SELECT coalesce(max(generation), 0) FROM lost_generations WHERE environment = $1)) AS generation)
        SELECT highest.generation AS highest, c.ring, r.generation, r.kind, r.version, r.checksum FROM highest
        LEFT JOIN current_releases c ON c.environment = $1
        LEFT JOIN releases r ON r.environment = c.environment AND r.generation = c.generation
        """,
        environment,
    )
    return Snapshot(
        highest=rows[0]["highest"],
        pointers={
            row["ring"]: Pointer(row["generation"], Kind(row["kind"]), row["version"], row["checksum"])
            for row in rows
            if row["ring"] is not None
        },
    )


async def was_lost(connection: Connection, environment: str, generation: int) -> bool:
    """Return whether a person has declared that a generation is lost: then an older release is current again."""
    lost: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM lost_generations WHERE environment = $1 AND generation = $2)",
        environment,
        generation,
    )
    return lost


async def highest_generation(connection: Connection, environment: str) -> int:
    """Return the highest generation that was ever given out, lost ones included; 0 before the first."""
    highest: int = await connection.fetchval(
        """
        SELECT greatest(
            (SELECT coalesce(max(generation), 0) FROM releases WHERE environment = $1),
            (SELECT coalesce(max(generation), 0) FROM lost_generations WHERE environment = $1))
        """,
        environment,
    )
    return highest


@dataclass(frozen=True, slots=True)
class HighWaterMarks:
    """How far the records beside the database must reach: 0 where there is nothing that they could hold.

    Args:
        released: the highest generation that this database holds a release of.
        delivered: the highest of which every event was acknowledged by Kafka.
        declared: the highest that a person has declared lost (``recovery releases --lost``).
    """

    released: int
    delivered: int
    declared: int


async def high_water_marks(connection: Connection, environment: str) -> HighWaterMarks:
    """Return what the artifact store and Kafka must know, if they have lost nothing."""
    (row,) = await connection.fetch(
        """
        SELECT (SELECT coalesce(max(generation), 0) FROM releases WHERE environment = $1) AS released,
            (SELECT coalesce(max(generation), 0) FROM (
                SELECT generation FROM outbox WHERE environment = $1 AND stream = 'updated'
                GROUP BY generation HAVING bool_and(delivered_at IS NOT NULL)) whole) AS delivered,
            (SELECT coalesce(max(generation), 0) FROM lost_generations WHERE environment = $1) AS declared
        """,
        environment,
    )
    return HighWaterMarks(row["released"], row["delivered"], row["declared"])


async def read_current(connection: Connection, environment: str, generation: int) -> CurrentConstitution:
    """Return a release as its rings must obey it, with the document's bytes and the signatures it went live with.

    Raises:
        UnavailableError: there is no such row, although a pointer or an outbox row names it.
    """
    row = await connection.fetchrow(
        """
        SELECT r.generation, r.kind, r.version, r.checksum, r.effective_at, r.statement::text AS statement,
            r.signatures, a.document
        FROM releases r LEFT JOIN artifacts a USING (environment, checksum)
        WHERE r.environment = $1 AND r.generation = $2
        """,
        environment,
        generation,
    )
    if row is None:
        raise UnavailableError(f"generation {generation} of {environment} is not in PostgreSQL")
    files: dict[str, bytes] = {
        found["digest"]: found["signature"]
        for found in await connection.fetch(
            """
            SELECT digest, signature FROM artifact_signatures
            WHERE environment = $1 AND checksum = $2 AND digest = ANY($3::text[])
            """,
            environment,
            row["checksum"],
            row["signatures"],
        )
    }
    return CurrentConstitution(
        environment=environment,
        generation=row["generation"],
        kind=Kind(row["kind"]),
        version=row["version"],
        checksum=row["checksum"],
        effective_at=row["effective_at"],
        document=None if row["document"] is None else row["document"].decode("utf-8"),
        signatures=tuple(base64.b64encode(files[digest]).decode() for digest in row["signatures"]),
        statement=Envelope.model_validate_json(row["statement"]),
    )


async def read_release(connection: Connection, environment: str, generation: int) -> Release | None:
    """Return one release with its story so far, or None."""
    found = await _read(connection, environment, "AND r.generation = $2", generation)
    return found[0] if found else None


async def read_releases(connection: Connection, environment: str, *, before: int, limit: int) -> list[Release]:
    """Return releases below generation ``before``, newest first."""
    return await _read(
        connection, environment, "AND r.generation < $2 ORDER BY r.generation DESC LIMIT $3", before, limit
    )


async def _read(connection: Connection, environment: str, where: str, *arguments: int) -> list[Release]:
    rows = await connection.fetch(
        f"""
        SELECT r.*, r.statement::text AS statement_text, r.approvals::text AS approvals_text,
            r.workflow::text AS workflow_text, c.redis_at, c.checksum AS redis_checksum
        FROM releases r LEFT JOIN cache_deliveries c USING (environment, generation)
        WHERE r.environment = $1 {where}
        """,  # noqa: S608 - `where` is one of the two constants above
        environment,
        *arguments,
    )
    generations = [row["generation"] for row in rows]
    standings = await _standings(connection, environment, generations)
    deliveries = await connection.fetch(
        """
        SELECT generation, tenant, event_id, coalesce(again.kafka_partition, o.kafka_partition) AS kafka_partition,
            coalesce(again.kafka_offset, o.kafka_offset) AS kafka_offset, o.delivered_at
        FROM outbox o LEFT JOIN LATERAL (
            SELECT kafka_partition, kafka_offset FROM redeliveries WHERE outbox_id = o.id ORDER BY id DESC LIMIT 1
        ) again ON true
        WHERE environment = $1 AND stream = 'updated' AND generation = ANY($2::bigint[]) ORDER BY o.id
        """,
        environment,
        generations,
    )
    serving = await connection.fetch(
        "SELECT process, generation FROM service_processes WHERE environment = $1 AND seen_at > now() - $2::interval",
        environment,
        SERVED_WITHIN,
    )
    settled = await connection.fetchval("SELECT now() - $1::interval", FRESH_FOR)
    return [
        Release(
            environment=environment,
            generation=row["generation"],
            kind=Kind(row["kind"]),
            rings=tuple(row["rings"]),
            version=row["version"],
            checksum=row["checksum"],
            previous_generation=row["previous_generation"],
            rollback_of=row["rollback_of"],
            update_id=str(row["update_id"]),
            event_id=str(row["event_id"]),
            change_request=row["change_request"],
            reason=row["reason"],
            effective_at=row["effective_at"],
            approvers=tuple(row["approvers"]),
            evidence=row["evidence"],
            statement=Envelope.model_validate_json(row["statement_text"]),
            approvals=tuple(Envelope.model_validate(item) for item in json.loads(row["approvals_text"])),
            workflow=json.loads(row["workflow_text"]),
            standings=tuple(standings[row["generation"]]),
            delivery=_delivery(
                row,
                [item for item in deliveries if item["generation"] == row["generation"]],
                serving,
                settled,
            ),
        )
        for row in rows
    ]


async def _standings(
    connection: Connection, environment: str, generations: Sequence[int]
) -> dict[int, list[StandingRecord]]:
    rows = await connection.fetch(
        "SELECT * FROM standings WHERE environment = $1 AND generation = ANY($2::bigint[]) ORDER BY id",
        environment,
        list(generations),
    )
    result: dict[int, list[StandingRecord]] = defaultdict(list)
    for row in rows:
        result[row["generation"]].append(
            StandingRecord(
                standing=Standing(row["standing"]),
                verdict=None if row["verdict"] is None else Verdict(row["verdict"]),
                reason=row["reason"],
                update_id=str(row["update_id"]),
                recorded_at=row["recorded_at"],
            )
        )
    return result


def _delivery(
    row: asyncpg.Record, events: Sequence[asyncpg.Record], serving: Sequence[asyncpg.Record], settled: datetime
) -> Delivery:
    sent = [event for event in events if event["delivered_at"] is not None]
    delivered_at = max(event["delivered_at"] for event in sent) if sent and len(sent) == len(events) else None
    serve = {True: [], False: []}  # type: dict[bool, list[str]]
    for process in serving:
        serve[process["generation"] >= row["generation"]].append(process["process"])
    return Delivery(
        redis_at=row["redis_at"],
        redis_checksum=row["redis_checksum"],
        events=tuple(
            DeliveredEvent(
                tenant=event["tenant"],
                event_id=event["event_id"],
                partition=event["kafka_partition"],
                offset=event["kafka_offset"],
            )
            for event in sent
        ),
        delivered_at=delivered_at,
        served_by=tuple(sorted(serve[True])),
        # Its event was delivered after its commit: so long after that, no memory is fresh that lacks it.
        lagging=() if delivered_at is not None and delivered_at < settled else tuple(sorted(serve[False])),
    )
