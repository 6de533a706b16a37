"""Receipts: signed, read back, named by their digests. What one says: constitution/receipt.py."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from constitution.checksum import checksum_of
from constitution.errors import UntrustedError
from constitution.receipt import RECEIPT_PREDICATE, ReceiptManifest, ReceiptPredicate
from constitution.release import Envelope
from constitution.trust.trust_policy import TrustPolicy
from signatures import dsse
from signatures.statements import IN_TOTO, read_bound, statement


def manifest_bytes(manifest: ReceiptManifest) -> bytes:
    """Return a manifest as it is archived: RFC 8785 bytes; their checksum stands in the receipt."""
    return dsse.statement_bytes(manifest.model_dump(mode="json"))


def receipt_bytes(envelope: Envelope) -> bytes:
    """Return a receipt as it is archived: RFC 8785 bytes; their checksum is what the next receipt names."""
    return dsse.statement_bytes(envelope.model_dump(mode="json"))


def sign_receipt(predicate: ReceiptPredicate, keyid: str, private_key: Ed25519PrivateKey) -> Envelope:
    """Sign a receipt with a service key."""
    payload = statement(RECEIPT_PREDICATE, _subject(predicate), predicate)
    return dsse.sign_ed25519(payload, IN_TOTO, keyid, private_key)


def verify_receipt(envelope: Envelope, trust: TrustPolicy) -> ReceiptPredicate:
    """Return what a receipt says, once a pinned service key has been seen to have signed it.

    Raises:
        UntrustedError: not signed by such a key, no receipt, or of another environment than the trust policy's.
    """
    dsse.verify_service(envelope, trust)
    receipt = read_bound(envelope, RECEIPT_PREDICATE, ReceiptPredicate, _subject)
    if receipt.environment != trust.environment:  # one key may sign for several
        raise UntrustedError(f"the receipt is of {receipt.environment}, not of {trust.environment}")
    return receipt


def _subject(predicate: ReceiptPredicate) -> dict[str, Any]:
    release = checksum_of(f"{predicate.environment}\n{predicate.generation}".encode())
    return {"name": f"generation {predicate.generation}", "digest": {"sha256": release.removeprefix("sha256:")}}
