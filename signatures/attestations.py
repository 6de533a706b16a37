"""Attestations of gate, sync and watch: signed, verified. What counts: constitution/trust/attestation.py."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from constitution.checksum import checksum_of
from constitution.errors import UntrustedError
from constitution.release import Envelope
from constitution.trust.attestation import (
    GATE_PREDICATE,
    SYNC_PREDICATE,
    WATCH_PREDICATE,
    GatePredicate,
    SyncPredicate,
    WatchPredicate,
)
from constitution.trust.trust_policy import TrustPolicy
from signatures import dsse
from signatures.statements import IN_TOTO, document_subject, read_bound, statement

Attestation = GatePredicate | SyncPredicate | WatchPredicate
TYPES: dict[str, type[Attestation]] = {
    GATE_PREDICATE: GatePredicate,
    SYNC_PREDICATE: SyncPredicate,
    WATCH_PREDICATE: WatchPredicate,
}


def sign_attestation(predicate: Attestation, keyid: str, private_key: Ed25519PrivateKey) -> Envelope:
    """Sign what was seen with an assessor's key."""
    kind = next(name for name, model in TYPES.items() if isinstance(predicate, model))
    return dsse.sign_ed25519(statement(kind, _subject(predicate), predicate), IN_TOTO, keyid, private_key)


def verify_attestation(envelope: Envelope, trust: TrustPolicy) -> Attestation:
    """Return what an attestation says, once a pinned assessor's key has been seen to have signed it.

    Raises:
        UntrustedError: not signed by such a key, no attestation, or of another environment than the trust policy's.
    """
    dsse.verify_assessor(envelope, trust)
    kind = dsse.payload_of(envelope, IN_TOTO).get("predicateType")
    model = TYPES.get(kind) if isinstance(kind, str) else None
    if model is None or not isinstance(kind, str):
        raise UntrustedError("the statement is no attestation")
    predicate = read_bound(envelope, kind, model, _subject)
    if predicate.environment != trust.environment:
        raise UntrustedError(f"the attestation is of {predicate.environment}, not of {trust.environment}")
    return predicate


def attestation_kind(envelope: Envelope) -> str:
    """Return ``gate``, ``sync`` or ``watch``; says nothing about who signed it.

    Raises:
        UntrustedError: it is no attestation.
    """
    kind = dsse.payload_of(envelope, IN_TOTO).get("predicateType")
    names = {GATE_PREDICATE: "gate", SYNC_PREDICATE: "sync", WATCH_PREDICATE: "watch"}
    if not isinstance(kind, str) or kind not in names:
        raise UntrustedError("the statement is no attestation")
    return names[kind]


def _subject(predicate: Attestation) -> dict[str, object]:
    if isinstance(predicate, GatePredicate):
        return document_subject(predicate.checksum)
    release = checksum_of(f"{predicate.environment}\n{predicate.generation}".encode())
    return {"name": f"generation {predicate.generation}", "digest": {"sha256": release.removeprefix("sha256:")}}
