"""The one check before anybody obeys (invariant 8): consumers, readers of Redis, relay and read-back all share it.

Everything but the statement is untrusted until the statement has been verified (docs/architecture.md, events and
cache): who can write to Redis, Kafka or the artifact store, but has no key, cannot make a consumer obey.
"""

import base64
import binascii

from constitution.checksum import checksum_of
from constitution.errors import UntrustedError
from constitution.release import CurrentConstitution, Kind, ReleasePredicate
from constitution.trust.trust_policy import TrustPolicy
from constitution.untrusted import read_message
from signatures.statements import verify_release
from signatures.verify import verify_document


def verify_current(
    current: CurrentConstitution, *, trust: TrustPolicy, environment: str, ring: str
) -> ReleasePredicate:
    """Return the verified release statement of what a ring must obey.

    Checked: a pinned service key signed the statement; its environment and, among its rings, the ring; generation,
    kind, version, checksum and effective_at of ``current`` are the statement's; the document's bytes have the
    checksum; the document's signatures that the statement lists meet the document threshold, judged by the trust
    policy of now at the time that the statement names: a constitution does not end with its maintainer's key. Whether
    the generation is newer than the one obeyed now is the caller's to compare, *after* this.

    Args:
        current: answer of ``GET /v1/constitution``, or the value in Redis.
        trust: the pinned trust policy.
        environment: the one that the caller belongs to.
        ring: the caller's ring.

    Raises:
        UntrustedError: anything differs.
    """
    release = verify_release(current.statement, trust)
    for name, expected, actual in (
        ("environment", environment, release.environment),
        ("environment", current.environment, release.environment),
        ("generation", current.generation, release.generation),
        ("kind", current.kind, release.kind),
        ("version", current.version, release.version),
        ("checksum", current.checksum, release.checksum),
        ("effective_at", current.effective_at, release.effective_at),
    ):
        if expected != actual:
            raise UntrustedError(f"the release statement's {name} is {actual}, not {expected}")
    if ring not in release.rings:
        raise UntrustedError(f"the release statement covers the rings {', '.join(release.rings)}, not {ring}")
    if release.kind is Kind.WITHDRAW:
        if current.document is not None or release.checksum is not None:
            raise UntrustedError("a withdrawal carries a document")
        return release
    if current.document is None or release.checksum is None or release.version is None:
        raise UntrustedError(f"a release of kind {release.kind} carries no document")
    document = _document_bytes(current.document)
    if checksum_of(document) != release.checksum:
        raise UntrustedError(f"the document's bytes are {checksum_of(document)}, the statement says {release.checksum}")
    signatures = [data for data in map(_decode, current.signatures) if checksum_of(data) in release.signatures]
    moment = release.signatures_at or release.effective_at
    needed = trust.thresholds.for_document(release.kind, first=release.previous is None)
    verify_document(document, signatures, trust, moment).require(needed)
    return release


def read_current(data: bytes, *, trust: TrustPolicy, environment: str, ring: str) -> CurrentConstitution:
    """Return a message that anybody may have written, once all of it is proved.

    Args:
        data: the value in Redis.
        trust: the pinned trust policy.
        environment: the one that the caller belongs to.
        ring: the ring whose value it is.

    Raises:
        UntrustedError: it has another shape, or does not verify.
    """
    try:
        current = read_message(CurrentConstitution, data)
    except ValueError as error:
        raise UntrustedError("it cannot be read") from error
    verify_current(current, trust=trust, environment=environment, ring=ring)
    return current


def _document_bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UntrustedError("the document is not UTF-8") from error


def _decode(text: str) -> bytes:
    """Decode a signature file; what is no base64 is no listed signature."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
