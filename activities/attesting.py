"""The assessor's hand: it signs what its activities saw, and looks up itself what they are about.

Anybody who reaches Temporal may have it assess anything. So nothing that decides comes from an activity's input: a
document comes from the store by its checksum, a release from constitution-service's signed statement, a strategy from
the board's signed decisions, targets, deadlines and tenants from the assessor's own environment.toml.
"""

import asyncio

from activities.ports import ActivityConfig, ConstitutionService
from constitution.errors import EvidenceError, UntrustedError
from constitution.release import Release
from constitution.trust.plan import Plan
from signatures.approved import approved
from signatures.attestations import Attestation, sign_attestation
from signatures.statements import verify_release
from signatures.tokens import ClientKey

OF_STATEMENT = (
    "environment", "rings", "generation", "kind", "version", "checksum", "rollback_of", "effective_at", "evidence",
    "update_id",
)  # fmt: skip


class Attester:
    """Signs with the assessor's key, and stores what it signed.

    Args:
        service: where attestations are kept.
        config: environment and trust policy.
        key: of the trust policy's ``[[assessors]]``.
    """

    def __init__(self, *, service: ConstitutionService, config: ActivityConfig, key: ClientKey) -> None:
        self._service = service
        self._config = config
        self._key = key

    async def attest(self, predicate: Attestation) -> str:
        """Sign and store; return the digest of the envelope. The same again changes nothing."""
        envelope = sign_attestation(predicate, self._key.id, self._key.private_key)
        return await self._service.put_attestation(envelope)

    async def release(self, generation: int) -> tuple[Release, bool]:
        """Return a release as constitution-service's signed statement says, and whether nothing was live before it.

        Raises:
            NotFoundError: there is no such generation.
            UntrustedError: its statement is none, or that of another release.
        """
        found = await self._service.release(generation)
        said = await asyncio.to_thread(verify_release, found.statement, self._config.trust)
        if (said.environment, said.generation) != (self._config.environment.environment, generation):
            raise UntrustedError(f"the statement of generation {generation} is that of another release")
        signed = {name: getattr(said, name) for name in OF_STATEMENT}
        return found.model_copy(update=signed), said.previous is None

    async def plan(self, release: Release) -> Plan:
        """Return how the board signed that a release is watched.

        Raises:
            EvidenceError: no decision of it says so.
            UntrustedError: the stored decisions are not those that it went live by.
        """
        predicate = await asyncio.to_thread(approved, release, self._config.trust)
        if predicate is None or predicate.plan is None:
            raise EvidenceError(f"no approval of generation {release.generation} says how it is to be watched")
        return predicate.plan
