"""What the board signed about a release that went live: read from its signed statement, never from a row."""

from constitution.errors import UntrustedError
from constitution.release import Release
from constitution.trust.approval import ApprovalPredicate
from constitution.trust.trust_policy import TrustPolicy
from signatures.dsse import envelope_digest
from signatures.statements import verify_approval, verify_release


def approved(release: Release, trust: TrustPolicy) -> ApprovalPredicate | None:
    """Return the approval that a release went live by; all of its approvals name the same things (the binding).

    Signatures and thresholds were checked when it went live, at the time that its statement names; keys that have
    expired since take nothing away. None if it went live by no approval of its own, or was rebuilt when nothing but its
    statement was left (services/constitution_service/recovery/plan.py).

    Raises:
        UntrustedError: the stored statement or approvals are not what was signed.
    """
    statement = verify_release(release.statement, trust)
    if (statement.environment, statement.generation, statement.checksum) != (
        release.environment,
        release.generation,
        release.checksum,
    ):
        raise UntrustedError(f"the stored statement of generation {release.generation} is that of another release")
    if not statement.approvals or not release.approvals:
        return None
    if sorted(statement.approvals) != sorted(envelope_digest(envelope) for envelope in release.approvals):
        raise UntrustedError(f"the stored approvals of generation {release.generation} are not those of its statement")
    _, predicate = verify_approval(release.approvals[0], trust, statement.effective_at)
    return predicate
