"""The chain of audit events: numbers and links, given in the order of relaying; and its signed heads. Appended only."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import asyncpg

from adapters.postgres import Connection
from constitution.audit_head import AuditHead
from constitution.errors import UnavailableError
from constitution.release import Envelope
from services.constitution_service.tables.outbox import Pending, of_row


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """The newest event of a chain: its number and checksum; 0 and None before the first."""

    sequence: int = 0
    hash: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """An event with its place in the chain."""

    row: Pending
    sequence: int
    previous: str | None
    hash: str
    value: str


@dataclass(frozen=True, slots=True)
class HeadRow:
    """A signed head, and whether the store keeps it under a name of its own."""

    sequence: int
    hash: str
    kept: bool
    envelope: Envelope


async def numbered(connection: Connection, environment: str, limit: int) -> list[Pending]:
    """Return the events that have a number and are not on Kafka yet, as the bytes that their number is for.

    Args:
        connection: to read by.
        environment: whose.
        limit: how many are numbered at once. The next ones are numbered only after those were sent, so the newest
            ``limit`` events are all that there is to look at: a look at the whole chain would grow with it.
    """
    rows = await connection.fetch(
        """
        SELECT o.id, o.generation, o.event_id, o.key, o.headers::text AS headers, c.value FROM (
            SELECT sequence, outbox_id, value FROM audit_chain
            WHERE environment = $1 ORDER BY sequence DESC LIMIT $2
        ) AS c JOIN outbox o ON o.id = c.outbox_id
        WHERE o.delivered_at IS NULL ORDER BY c.sequence
        """,
        environment,
        limit,
    )
    return [of_row(row) for row in rows]


async def waiting(connection: Connection, environment: str, limit: int) -> list[Pending]:
    """Return the oldest events that are not on Kafka yet; none of them has a number, where ``numbered`` finds none."""
    rows = await connection.fetch(
        """
        SELECT id, generation, event_id, key, headers::text AS headers, value FROM outbox
        WHERE environment = $1 AND stream = 'audit' AND delivered_at IS NULL ORDER BY id LIMIT $2
        """,
        environment,
        limit,
    )
    return [of_row(row) for row in rows]


async def end_of(connection: Connection, environment: str) -> ChainEnd:
    """Return the newest event, of the rows or of a head from the store."""
    row = await connection.fetchrow("SELECT sequence, hash FROM audit_chain_end($1)", environment)
    return ChainEnd() if row is None or row["sequence"] is None else ChainEnd(row["sequence"], row["hash"])


async def hash_at(connection: Connection, environment: str, sequence: int) -> str | None:
    """Return the checksum of the event with this number, if it is known here."""
    found: str | None = await connection.fetchval(
        """
        SELECT hash FROM audit_chain WHERE environment = $1 AND sequence = $2
        UNION ALL SELECT hash FROM audit_heads WHERE environment = $1 AND sequence = $2 LIMIT 1
        """,
        environment,
        sequence,
    )
    return found


async def append(
    connection: Connection,
    links: Sequence[Link],
    head: AuditHead,
    envelope: Envelope,
    *,
    kept: bool,
    holder: str,
    epoch: int,
) -> list[Pending]:
    """Add events and the head of the last one, all or none, and return them as they are sent.

    Args:
        connection: in no transaction: this is one statement, so that a process that is stopped holds no lock.
        links: at least one, each following the one before.
        head: of the last one.
        envelope: the head, signed.
        kept: the store keeps it under its own name.
        holder: the process that relays.
        epoch: of its right to relay.

    Raises:
        UnavailableError: another process relays, or has numbered events meanwhile: the database refuses gaps and forks.
    """
    try:
        held = await connection.fetchval(
            "SELECT append_audit_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            head.environment,
            holder,
            epoch,
            links[0].sequence,
            links[0].previous,
            [link.row.id for link in links],
            [link.hash for link in links],
            [link.value for link in links],
            kept,
            json.dumps(envelope.model_dump(mode="json")),
        )
    except asyncpg.IntegrityConstraintViolationError as error:
        raise UnavailableError(f"audit events were not numbered: {error}") from error
    if not held:
        raise UnavailableError("another process relays now")
    return [replace(link.row, value=link.value) for link in links]


async def add_head(connection: Connection, head: AuditHead, envelope: Envelope) -> bool:
    """Add a head that the store kept, above all that is known here; False if it is there already."""
    added = await connection.fetchval(
        """
        INSERT INTO audit_heads (environment, sequence, hash, kept, envelope) VALUES ($1, $2, $3, TRUE, $4)
        ON CONFLICT (environment, sequence) DO NOTHING RETURNING TRUE
        """,
        head.environment,
        head.sequence,
        head.hash,
        json.dumps(envelope.model_dump(mode="json")),
    )
    return added is True


async def newest_head(connection: Connection, environment: str) -> HeadRow | None:
    """Return the newest head."""
    row = await connection.fetchrow(
        """
        SELECT sequence, hash, kept, envelope::text AS envelope FROM audit_heads
        WHERE environment = $1 ORDER BY sequence DESC LIMIT 1
        """,
        environment,
    )
    return None if row is None else _head(row)


async def kept_heads(connection: Connection, environment: str, after: int, limit: int) -> list[HeadRow]:
    """Return the heads above a number that the store keeps under names of their own, oldest first."""
    rows = await connection.fetch(
        """
        SELECT sequence, hash, kept, envelope::text AS envelope FROM audit_heads
        WHERE environment = $1 AND kept AND sequence > $2 ORDER BY sequence LIMIT $3
        """,
        environment,
        after,
        limit,
    )
    return [_head(row) for row in rows]


def _head(row: asyncpg.Record) -> HeadRow:
    return HeadRow(row["sequence"], row["hash"], row["kept"], Envelope.model_validate_json(row["envelope"]))
