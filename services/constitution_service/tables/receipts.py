"""Receipts of releases, in the order of sealing. Appended to, never changed."""

from dataclasses import dataclass

import asyncpg

from adapters.postgres import Connection
from constitution.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """A sealed receipt: envelope and manifest as the texts that are archived."""

    sequence: int
    generation: int
    previous: str | None
    digest: str
    envelope: str
    manifest: str


async def of_release(connection: Connection, environment: str, generation: int) -> ReceiptRow | None:
    """Return the receipt of a release, or None."""
    row = await connection.fetchrow(
        "SELECT * FROM receipts WHERE environment = $1 AND generation = $2", environment, generation
    )
    return None if row is None else _row(row)


async def newest(connection: Connection, environment: str) -> ReceiptRow | None:
    """Return the newest receipt, or None."""
    row = await connection.fetchrow(
        "SELECT * FROM receipts WHERE environment = $1 ORDER BY sequence DESC LIMIT 1", environment
    )
    return None if row is None else _row(row)


async def sequences(connection: Connection, environment: str) -> frozenset[int]:
    """Return the number of every receipt."""
    rows = await connection.fetch("SELECT sequence FROM receipts WHERE environment = $1", environment)
    return frozenset(row["sequence"] for row in rows)


async def append(connection: Connection, environment: str, row: ReceiptRow) -> None:
    """Append a receipt; the caller holds the lock of the environment's lease.

    Raises:
        UnavailableError: another one was sealed meanwhile.
    """
    try:
        await connection.execute(
            """
            INSERT INTO receipts (environment, sequence, generation, previous, digest, envelope, manifest)
            VALUES ($1, $2, $3, $4, $5, $6, $7)
            """,
            environment,
            row.sequence,
            row.generation,
            row.previous,
            row.digest,
            row.envelope,
            row.manifest,
        )
    except asyncpg.IntegrityConstraintViolationError as error:
        raise UnavailableError(f"the receipt was not appended: {error}") from error


def _row(row: asyncpg.Record) -> ReceiptRow:
    return ReceiptRow(
        sequence=row["sequence"],
        generation=row["generation"],
        previous=row["previous"],
        digest=row["digest"],
        envelope=row["envelope"],
        manifest=row["manifest"],
    )
