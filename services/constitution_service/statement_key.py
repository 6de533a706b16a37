"""The key that signs release statements, receipts, and heads of the audit stream.

It must be pinned by the trust policy, or no consumer would obey.
"""

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from constitution.audit_head import AuditHead
from constitution.errors import InvalidRequestError, NotYetError, UntrustedError
from constitution.receipt import ReceiptPredicate
from constitution.release import Envelope, ReleasePredicate
from constitution.trust.trust_policy import TrustPolicy
from signatures.audit_chain import sign_head
from signatures.receipts import sign_receipt
from signatures.statements import sign_release
from signatures.tokens import ClientKey

HINT = "give STATEMENT_KEY_FILE the new key, and start the service again (docs/keys.md)"


@dataclass(frozen=True, slots=True)
class StatementKey:
    """A service's private key and its id in the trust policy."""

    id: str
    private_key: Ed25519PrivateKey = field(repr=False)

    def trouble(self, trust: TrustPolicy) -> str:
        """Return why nobody would obey what this key signs, or nothing."""
        pinned = trust.service(self.id)
        if pinned is not None and pinned.raw() == self.private_key.public_key().public_bytes_raw():
            return ""
        return f"the statement key of {self.id} is not in version {trust.version} of the trust policy"

    def sign(self, predicate: ReleasePredicate, trust: TrustPolicy) -> Envelope:
        """Return the signed release statement.

        Raises:
            UntrustedError: the trust policy in force no longer pins this key.
        """
        if trouble := self.trouble(trust):
            raise UntrustedError(f"{trouble}: nobody would obey it", hint=HINT)
        return sign_release(predicate, self.id, self.private_key)

    def sign_audit_head(self, head: AuditHead) -> Envelope:
        """Return the signed head of the audit stream."""
        return sign_head(head, self.id, self.private_key)

    def sign_receipt(self, receipt: ReceiptPredicate, trust: TrustPolicy) -> Envelope:
        """Return the signed receipt of a release.

        Raises:
            NotYetError: the trust policy in force no longer pins this key, and a receipt is sealed once: it waits.
        """
        if trouble := self.trouble(trust):
            raise NotYetError(f"{trouble}: no receipt is sealed with it", hint=HINT)
        return sign_receipt(receipt, self.id, self.private_key)


def load_statement_key(path: Path, trust: TrustPolicy) -> StatementKey:
    """Read the key.

    Raises:
        InvalidRequestError: no such key, or the trust policy does not pin its public half under its id.
    """
    key = ClientKey.load(path)
    found = StatementKey(key.id, key.private_key)
    if found.trouble(trust):
        raise InvalidRequestError(
            f"STATEMENT_KEY_FILE holds the key of {key.id!r}, which the trust policy does not pin under [[services]]"
        )
    return found
