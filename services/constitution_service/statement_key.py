"""The key that signs release statements. It must be pinned by the trust policy, or no consumer would obey."""

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from constitution.errors import InvalidRequestError
from constitution.release import Envelope, ReleasePredicate
from constitution.trust.trust_policy import TrustPolicy
from signatures.statements import sign_release
from signatures.tokens import ClientKey


@dataclass(frozen=True, slots=True)
class StatementKey:
    """A service's private key and its id in the trust policy."""

    id: str
    private_key: Ed25519PrivateKey = field(repr=False)

    def sign(self, predicate: ReleasePredicate) -> Envelope:
        """Return the signed release statement."""
        return sign_release(predicate, self.id, self.private_key)


def load_statement_key(path: Path, trust: TrustPolicy) -> StatementKey:
    """Read the key.

    Raises:
        InvalidRequestError: no such key, or the trust policy does not pin its public half under its id.
    """
    key = ClientKey.load(path)
    pinned = trust.service(key.id)
    if pinned is None or pinned.raw() != key.private_key.public_key().public_bytes_raw():
        raise InvalidRequestError(
            f"STATEMENT_KEY_FILE holds the key of {key.id!r}, which the trust policy does not pin under [[services]]"
        )
    return StatementKey(key.id, key.private_key)
