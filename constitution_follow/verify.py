"""From untrusted answer to something that may be obeyed. Pure: no clock, no I/O.

Order: statement, environment, ring, bytes and signatures first (``signatures.current.verify_current``; TUF 5.6.2 and
5.6.3), then the document's own meaning. The caller compares generations, and only after this.
"""

from datetime import datetime

from constitution.errors import UntrustedError
from constitution.policy.document import parse
from constitution.policy.rules import Policy
from constitution.release import CurrentConstitution
from constitution.trust.trust_policy import TrustPolicy
from constitution_follow.obeyed import Obeyed
from signatures.current import verify_current


def verified(
    current: CurrentConstitution,
    *,
    trust: TrustPolicy,
    environment: str,
    ring: str,
    now: datetime,
    known: Obeyed | None,
) -> Obeyed:
    """Verify an answer of ``GET /v1/constitution`` and compile its rules.

    Args:
        current: the answer; nothing in it is trusted.
        trust: the pinned trust policy.
        environment: whose statements are obeyed.
        ring: whose releases are obeyed.
        now: when it was read.
        known: what is obeyed now; its compiled rules are taken again when the document is the same.

    Raises:
        UntrustedError: statement, environment, ring, bytes or signatures do not verify.
        InvalidDocumentError: the signed document is no constitution that this version can obey.
    """
    release = verify_current(current, trust=trust, environment=environment, ring=ring)
    if release.checksum is None or current.document is None:
        return Obeyed(
            generation=release.generation,
            kind=release.kind,
            version=None,
            checksum=None,
            policy=None,
            terms=None,
            loaded_at=now,
        )
    if known is not None and known.policy is not None and known.checksum == release.checksum:
        policy, terms = known.policy, known.terms
    else:
        document = parse(current.document.encode())
        if document.environment != environment or document.version != release.version:
            raise UntrustedError(
                f"the document says {document.environment} {document.version}, its release statement says "
                f"{environment} {release.version}"
            )
        policy, terms = Policy.compile(document), document.terms
    return Obeyed(
        generation=release.generation,
        kind=release.kind,
        version=release.version,
        checksum=release.checksum,
        policy=policy,
        terms=terms,
        loaded_at=now,
    )
