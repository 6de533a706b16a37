"""Attestations: what an assessor signed about what it saw. Verified when stored, and again whenever one decides.

Whoever writes to the database adds a row that counts for nothing: only a key of the trust policy makes one count
(invariant 5). So does a key that leaves the policy take all of its attestations with it.
Anybody who reaches Temporal may have the assessor look as often as he likes, so their number is bounded: the same seen
again is the same attestation, and beyond ``MAX_ATTESTATIONS`` about one release or one record none is taken.
"""

import asyncio
from collections.abc import Sequence

import structlog

from adapters.postgres import Connection
from constitution.errors import ConflictError, UntrustedError
from constitution.release import Envelope
from constitution.trust.attestation import GatePredicate
from services.constitution_service.context import Context
from signatures.attestations import Attestation, verify_attestation
from signatures.dsse import envelope_digest

MAX_ATTESTATIONS = 64
"""About one release, or one record of evidence. A release takes a sync and a watch; a hold, a few watches more."""

_log = structlog.get_logger(__name__)


async def put(context: Context, envelope: Envelope) -> str:
    """Store an attestation and return its digest; the same one again changes nothing.

    Raises:
        UntrustedError: no assessor of the trust policy signed it, or it is of another environment.
        ConflictError: there are as many about this release, or this record, as are kept.
    """
    said = await asyncio.to_thread(verify_attestation, envelope, context.trust)
    evidence, generation = (said.evidence, None) if isinstance(said, GatePredicate) else (None, said.generation)
    digest = envelope_digest(envelope)
    async with context.database.transaction() as connection:
        present = await find(connection, context.environment, evidence=evidence, generation=generation)
        if len(present) >= MAX_ATTESTATIONS and envelope not in present:
            about = f"generation {generation}" if evidence is None else f"the evidence {evidence}"
            raise ConflictError(
                f"there are {MAX_ATTESTATIONS} attestations about {about}, and no more are kept",
                hint="look in Temporal for who has the assessor look again and again",
            )
        await connection.execute(
            """
            INSERT INTO attestations (environment, digest, evidence, generation, envelope)
            VALUES ($1, $2, $3, $4, $5) ON CONFLICT (environment, digest) DO NOTHING
            """,
            context.environment,
            digest,
            evidence,
            generation,
            envelope.model_dump_json(),
        )
    return digest


async def find(
    connection: Connection, environment: str, *, evidence: str | None = None, generation: int | None = None
) -> list[Envelope]:
    """Return the stored attestations about a record of evidence, or about a release; oldest first, if not too many."""
    rows = await connection.fetch(
        """
        SELECT envelope FROM attestations WHERE environment = $1 AND (evidence = $2 OR generation = $3)
        ORDER BY position LIMIT $4
        """,
        environment,
        evidence,
        generation,
        MAX_ATTESTATIONS,
    )
    return [Envelope.model_validate_json(row["envelope"]) for row in rows]


async def verified(
    connection: Connection, context: Context, *, evidence: str | None = None, generation: int | None = None
) -> Sequence[Attestation]:
    """Return what those say that an assessor of the trust policy signed; oldest first."""
    envelopes = await find(connection, context.environment, evidence=evidence, generation=generation)
    found = await asyncio.to_thread(lambda: [_verified(context, envelope) for envelope in envelopes])
    return [said for said in found if said is not None]


def _verified(context: Context, envelope: Envelope) -> Attestation | None:
    try:
        return verify_attestation(envelope, context.trust)
    except UntrustedError as error:
        _log.warning("attestation_does_not_count", reason=error.message)
        return None
