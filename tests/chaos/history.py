"""Puts releases into the scratch database, as a restored backup would: in the tables' own order.

``deploy/sql/migrations`` says what the tables mean. Nothing was approved here and no row says so: approvers, approvals
and evidence stay empty. What makes an engine obey is the statement, which is signed with the scratch service's key.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

import asyncpg
from chaos.signing import UPDATE_ID, Signing

from constitution.checksum import checksum_of
from constitution.policy.document import parse

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass(frozen=True)
class ReleaseRow:
    """A release of ``document`` over ``previous`` as ``generation``, effective ``now``."""

    document: bytes
    previous: bytes | None
    generation: int
    now: datetime


async def insert_artifact(connection: Connection, *, signing: Signing, document: bytes) -> None:
    """Store a document and its signature."""
    environment, checksum, signature = signing.environment, checksum_of(document), signing.signature(document)
    await connection.execute(
        "INSERT INTO artifacts (environment, checksum, version, document, storage_uri) VALUES ($1, $2, $3, $4, '')",
        *(environment, checksum, parse(document).version, document),
    )
    await connection.execute(
        "INSERT INTO artifact_signatures (environment, checksum, digest, signature) VALUES ($1, $2, $3, $4)",
        *(environment, checksum, checksum_of(signature), signature),
    )


async def insert_release(connection: Connection, *, signing: Signing, row: ReleaseRow) -> None:
    """Make a stored document the current one of the ring ``default``, confirmed."""
    environment, digest = signing.environment, checksum_of(signing.signature(row.document))
    statement = signing.statement(row.document, generation=row.generation, previous=row.previous, now=row.now)
    await connection.execute(
        """
        INSERT INTO releases (environment, generation, kind, rings, version, checksum, previous_generation,
            previous_checksum, update_id, event_id, reason, effective_at, approvers, statement, approvals,
            signatures, workflow)
        VALUES ($1, $2, 'update', '{default}', $3, $4, $5, $6, $7, $8, 'scratch', $9, '{}', $10, '[]', $11, '{}')
        """,
        *(environment, row.generation, parse(row.document).version, checksum_of(row.document)),
        *(row.generation - 1 or None, checksum_of(row.previous) if row.previous is not None else None),
        *(uuid.UUID(UPDATE_ID), uuid.uuid4(), row.now, statement.model_dump_json(), [digest]),
    )
    await connection.execute(
        """
        INSERT INTO current_releases (environment, ring, generation) VALUES ($1, 'default', $2)
        ON CONFLICT (environment, ring) DO UPDATE SET generation = excluded.generation
        """,
        *(environment, row.generation),
    )
    await connection.execute(
        """
        INSERT INTO standings (environment, generation, standing, reason, update_id)
        VALUES ($1, $2, 'confirmed', 'scratch', $3)
        """,
        *(environment, row.generation, uuid.UUID(UPDATE_ID)),
    )
