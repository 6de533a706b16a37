"""The outbox: events, committed with the change that they announce; marked when they are on Kafka (invariant 2)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import asyncpg

from adapters.kafka_producer import Position, ProducedMessage
from adapters.postgres import Connection

CHANNEL = "constitution_outbox"
"""``NOTIFY`` channel that wakes the relay when a row was committed."""

Stream = Literal["updated", "audit"]


@dataclass(frozen=True, slots=True)
class Pending:
    """A row that is not on Kafka yet."""

    id: int
    generation: int | None
    event_id: str
    key: str
    headers: tuple[tuple[str, bytes], ...]
    value: str

    def message(self, topic: str) -> ProducedMessage:
        """Return the message to send."""
        return ProducedMessage(topic=topic, key=self.key.encode(), value=self.value.encode(), headers=self.headers)


async def add(
    connection: Connection,
    environment: str,
    stream: Stream,
    *,
    event_id: str,
    key: str,
    headers: Mapping[str, str],
    value: str,
    generation: int | None = None,
    tenant: str | None = None,
) -> bool:
    """Add one row in the caller's transaction; False if an event with this id is there already."""
    added = await connection.fetchval(
        """
        INSERT INTO outbox (environment, stream, event_id, generation, tenant, key, headers, value)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (environment, stream, event_id) DO NOTHING RETURNING id
        """,
        environment,
        stream,
        event_id,
        generation,
        tenant,
        key,
        json.dumps(dict(headers)),
        value,
    )
    await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, environment)
    return added is not None


async def pending(connection: Connection, environment: str, limit: int) -> list[Pending]:
    """Return the oldest events of releases that are not on Kafka yet, in the order they must be sent."""
    rows = await connection.fetch(
        """
        SELECT id, generation, event_id, key, headers::text AS headers, value FROM outbox
        WHERE environment = $1 AND stream = 'updated' AND delivered_at IS NULL ORDER BY generation, id LIMIT $2
        """,
        environment,
        limit,
    )
    return [of_row(row) for row in rows]


def of_row(row: asyncpg.Record) -> Pending:
    """Return a row of the outbox as what is sent."""
    return Pending(
        id=row["id"],
        generation=row["generation"],
        event_id=row["event_id"],
        key=row["key"],
        headers=tuple((name, text.encode()) for name, text in json.loads(row["headers"]).items()),
        value=row["value"],
    )


async def mark_delivered(connection: Connection, rows: Sequence[Pending], positions: Sequence[Position]) -> None:
    """Mark rows as delivered, each once: a mark that is there stays."""
    await connection.executemany(
        """
        UPDATE outbox SET kafka_partition = $2, kafka_offset = $3, delivered_at = clock_timestamp()
        WHERE id = $1 AND delivered_at IS NULL
        """,
        [(row.id, position.partition, position.offset) for row, position in zip(rows, positions, strict=True)],
    )
