"""Sigstore bundles by sigstore-python, offline, against a pinned trusted root.

Its import costs about a second, so it happens at the first bundle. Rules that it leaves to its callers: the root's
entries are filtered to those in force (it ignores ``validFor`` of logs and authorities), identity and issuer are both
required, only message-signature bundles count (a DSSE bundle covers another payload), and any exception means
refused: malformed bundles also raise ValueError, OverflowError and binascii.Error. Bundles are malleable: their digest
names a file, never a signature.
Source: github.com/sigstore/sigstore-python, sigstore/verify; docs/adr/0004-signatures.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from constitution import strict_json
from constitution.errors import UntrustedError
from constitution.trust.trust_policy import Person, TrustPolicy
from signatures.sigstore_root import in_force

CLOCK_SKEW = timedelta(minutes=5)  # a log's clock may be this far ahead of ours


class SigstoreError(UntrustedError):
    """A bundle that is not accepted; the message says why."""


@dataclass(frozen=True, slots=True)
class Signatory:
    """Whose certificate it is.

    Args:
        person: id in the trust policy.
        identity: by which the trust policy knows them.
        detail: identity and issuer, in words.
    """

    person: str
    identity: str
    detail: str


class _Anyone:
    """A sigstore-python verification policy: one of the pinned identities; remembers which."""

    def __init__(self, people: Sequence[Person]) -> None:
        self._people = people
        self.found: Signatory | None = None

    def verify(self, cert: Any) -> None:
        """Find the person whose identity and issuer the certificate carries.

        Raises:
            sigstore.errors.VerificationError: nobody's.
        """
        from sigstore.errors import VerificationError  # noqa: PLC0415 - late: see the module's docstring
        from sigstore.verify import policy  # noqa: PLC0415 - late

        elsewhere = ""
        for person in self._people:
            for entry in person.sigstore:
                if not entry.identity or not entry.issuer:  # the library would skip an empty issuer
                    continue
                try:
                    policy.Identity(identity=entry.identity, issuer=entry.issuer).verify(cert)
                except VerificationError:
                    continue
                source: list[policy.VerificationPolicy] = []
                if entry.repository is not None:
                    source.append(policy.OIDCSourceRepositoryURI(entry.repository))
                if entry.ref is not None:
                    source.append(policy.OIDCSourceRepositoryRef(entry.ref))
                try:
                    if source:
                        policy.AllOf(source).verify(cert)
                except VerificationError:
                    elsewhere = f"{person.id}'s identity, but not of the repository and ref that it counts for"
                    continue
                self.found = Signatory(person.id, entry.identity, f"Sigstore {entry.identity} by {entry.issuer}")
                return
        raise VerificationError(elsewhere or "the identity or its issuer belongs to nobody who may sign here")


def signatory(certificate: Any, people: Sequence[Person]) -> Signatory:
    """Return whose certificate this is; says nothing about who issued it.

    Args:
        certificate: an X.509 certificate (`cryptography`), fetched from an authority that the caller trusts.
        people: who it may be of.

    Raises:
        SigstoreError: nobody's.
    """
    from sigstore.errors import VerificationError  # noqa: PLC0415 - late

    candidates = _Anyone(people)
    try:
        candidates.verify(certificate)
    except VerificationError as error:
        raise SigstoreError(str(error)) from error
    if candidates.found is None:
        raise SigstoreError("no identity was checked")
    return candidates.found


def verify(document: bytes, bundle: bytes, people: Sequence[Person], trust: TrustPolicy, now: datetime) -> Signatory:
    """Check one bundle over a document.

    Args:
        document: the signed bytes.
        bundle: JSON of a Sigstore bundle with a message signature.
        people: who may have signed.
        trust: holds the pinned root.
        now: the time to judge by; aware.

    Raises:
        SigstoreError: not accepted, for any reason.
    """
    if trust.sigstore is None or not any(person.sigstore for person in people):
        raise SigstoreError("nobody who may sign here has a Sigstore identity")
    root = trust.files.get(trust.sigstore.trusted_root)
    if root is None:
        raise SigstoreError("the pinned Sigstore root was not loaded")
    try:
        content = strict_json.read(bundle)
    except strict_json.StrictJsonError as error:
        raise SigstoreError(f"the bundle cannot be read: {error}") from error
    if not isinstance(content, dict) or "messageSignature" not in content or "dsseEnvelope" in content:
        raise SigstoreError("the bundle holds no message signature over the document")
    candidates = _Anyone(people)
    try:
        from sigstore.models import Bundle  # noqa: PLC0415 - late

        parsed = Bundle.from_json(bundle)
        times = _signed_times(parsed)
        signed_at = max(times, default=None)
        # The earliest claim: one of them is verified below, and an authority that had not begun then cannot count.
        _verifier(in_force(root, begun_by=min(times, default=now), now=now)).verify_artifact(
            document, parsed, candidates
        )
    except ModuleNotFoundError as error:
        raise SigstoreError("Sigstore is not installed: pip install 'constitution-runbook[sigstore]'") from error
    except Exception as error:  # malformed bundles raise ValueError, OverflowError and more: all of it is a refusal
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise SigstoreError(f"the bundle does not verify: {reason}") from error
    if candidates.found is None:
        raise SigstoreError("the bundle does not verify: no identity was checked")
    if signed_at is not None and signed_at > now + CLOCK_SKEW:
        raise SigstoreError(f"the bundle is dated in the future: {signed_at.isoformat()}")
    made = f", logged {signed_at.isoformat()}" if signed_at is not None else ""
    return replace(candidates.found, detail=candidates.found.detail + made)


def _signed_times(bundle: Any) -> list[datetime]:
    """Return every time of signing that a bundle claims: of the log, and of timestamp authorities."""
    seconds = bundle.log_entry._inner.integrated_time  # noqa: SLF001 - no public accessor in sigstore-python 4.5
    found = [datetime.fromtimestamp(int(seconds), UTC)] if seconds else []
    stamps = bundle.verification_material.timestamp_verification_data
    return found + [stamp.tst_info.gen_time for stamp in (stamps.rfc3161_timestamps if stamps else ())]


@lru_cache(maxsize=32)  # one per period between two beginnings or ends; a public root has about ten
def _verifier(root: bytes) -> Any:
    from sigstore.models import TrustedRoot  # noqa: PLC0415 - late
    from sigstore.verify import Verifier  # noqa: PLC0415 - late
    from sigstore_models.trustroot import v1  # noqa: PLC0415 - late

    return Verifier(trusted_root=TrustedRoot(v1.TrustedRoot.from_json(root)))
