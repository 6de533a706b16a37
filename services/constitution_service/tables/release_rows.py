"""Appends a release: its row, and the pointers of its rings. Used by a load and by recovery."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from adapters.postgres import Connection
from constitution.release import Envelope, ReleasePredicate


async def append(
    connection: Connection,
    predicate: ReleasePredicate,
    *,
    statement: Envelope,
    previous_generation: int | None,
    event_id: str,
    change_request: str | None,
    reason: str,
    approvers: Sequence[str],
    approvals: Sequence[Envelope],
    workflow: Mapping[str, Any],
) -> None:
    """Write a release into the caller's transaction, and have its rings obey it (invariant 3: the next generation).

    Args:
        connection: in a transaction that holds the lock of the environment's lease.
        predicate: what the release's statement says.
        statement: signed.
        previous_generation: what the rings obeyed until now.
        event_id: of its events.
        change_request: its id, where the kind takes one.
        reason: for people.
        approvers: ids of the people who approved it.
        approvals: their envelopes.
        workflow: of the run that asked for it.

    Raises:
        asyncpg.IntegrityConstraintViolationError: the generation does not follow the highest.
    """
    await connection.execute(
        """
        INSERT INTO releases (environment, generation, kind, rings, version, checksum, previous_generation,
            previous_checksum, rollback_of, update_id, event_id, change_request, reason, effective_at, approvers,
            evidence, statement, approvals, signatures, workflow)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
        """,
        predicate.environment,
        predicate.generation,
        predicate.kind.value,
        list(predicate.rings),
        predicate.version,
        predicate.checksum,
        previous_generation,
        predicate.previous,
        predicate.rollback_of,
        UUID(predicate.update_id),
        UUID(event_id),
        change_request,
        reason,
        predicate.effective_at,
        list(approvers),
        predicate.evidence,
        statement.model_dump_json(),
        json.dumps([envelope.model_dump(mode="json") for envelope in approvals]),
        list(predicate.signatures),
        json.dumps(dict(workflow)),
    )
    for ring in predicate.rings:
        await connection.execute(
            """
            INSERT INTO current_releases (environment, ring, generation) VALUES ($1, $2, $3)
            ON CONFLICT (environment, ring) DO UPDATE SET generation = EXCLUDED.generation
            """,
            predicate.environment,
            ring,
            predicate.generation,
        )
