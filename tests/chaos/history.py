"""Puts releases into the scratch database, as a restored backup would: in one transaction, in the tables' own order.

``deploy/sql/migrations`` says what the tables mean. Nothing was approved here and no row says so: approvers, approvals
and evidence stay empty. What makes an engine obey is the statement, which is signed with the scratch service's key.
"""

import uuid
from datetime import datetime
from typing import TypeAlias

import asyncpg
from chaos.signing import UPDATE_ID, Signing

from constitution.checksum import checksum_of
from constitution.document import parse

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def insert_release(
    connection: Connection, signing: Signing, document: bytes, previous: bytes | None, *, generation: int, now: datetime
) -> None:
    """Make ``document`` the current one of the ring ``default``, confirmed, as ``generation``."""
    environment, checksum, version = signing.environment, checksum_of(document), parse(document).version
    signature = signing.signature(document)
    statement = signing.statement(document, generation=generation, previous=previous, now=now)
    async with connection.transaction():
        await connection.execute(
            """
            INSERT INTO artifacts (environment, checksum, version, document, storage_uri) VALUES ($1, $2, $3, $4, '')
            """,
            *(environment, checksum, version, document),
        )
        await connection.execute(
            "INSERT INTO artifact_signatures (environment, checksum, digest, signature) VALUES ($1, $2, $3, $4)",
            *(environment, checksum, checksum_of(signature), signature),
        )
        await connection.execute(
            """
            INSERT INTO releases (environment, generation, kind, rings, version, checksum, previous_generation,
                previous_checksum, update_id, event_id, reason, effective_at, approvers, statement, approvals,
                signatures, workflow)
            VALUES ($1, $2, 'update', '{default}', $3, $4, $5, $6, $7, $8, 'scratch', $9, '{}', $10, '[]', $11, '{}')
            """,
            *(environment, generation, version, checksum, generation - 1 or None),
            checksum_of(previous) if previous is not None else None,
            *(uuid.UUID(UPDATE_ID), uuid.uuid4(), now, statement.model_dump_json(), [checksum_of(signature)]),
        )
        await connection.execute(
            """
            INSERT INTO current_releases (environment, ring, generation) VALUES ($1, 'default', $2)
            ON CONFLICT (environment, ring) DO UPDATE SET generation = excluded.generation
            """,
            *(environment, generation),
        )
        await connection.execute(
            """
            INSERT INTO standings (environment, generation, standing, reason, update_id)
            VALUES ($1, $2, 'confirmed', 'scratch', $3)
            """,
            *(environment, generation, uuid.UUID(UPDATE_ID)),
        )
