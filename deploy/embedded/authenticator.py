"""A person's authenticator in software, and the browser in front of it: real keys, in the standard's own encoding.

It signs what Web Authentication Level 3 says (sections 6.3.2, 6.3.3 and 5.8.1), so the product meets what a device
sends, and what a hostile page or device may send instead (docs/adr/0004). `make demo SIGSTORE=1` and tests use it where
there is no browser; tests/integration/test_passkeys_browser.py uses Chromium's own.
"""

import hashlib
import json
import secrets
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url

from constitution.trust.passkey import Passkey
from deploy.embedded.stack_directory import write_private

RELYING_PARTY = "constitution.example.org"
ORIGIN = f"https://{RELYING_PARTY}"
PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40  # flags of the authenticator data


@dataclass(frozen=True)
class Authenticator:
    """One passkey."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    credential: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    @classmethod
    def load(cls, file: Path) -> "Authenticator":
        """Read one that `save` has written."""
        kept = json.loads(file.read_text())
        key = load_pem_private_key(kept["key"].encode(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{file} holds no passkey")
        return cls(key, base64url_to_bytes(kept["credential"]))

    def save(self, file: Path) -> None:
        """Write the secret key, mode 0600, as a device never would."""
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        write_private(file, json.dumps({"credential": self.passkey.credential, "key": pem}))

    @property
    def passkey(self) -> Passkey:
        """As a trust policy pins it."""
        return Passkey(credential=bytes_to_base64url(self.credential), public_key=bytes_to_base64url(self._cose()))

    @property
    def entry(self) -> str:
        """The line of trust.toml."""
        return f'passkeys = [{{ credential = "{self.passkey.credential}", public_key = "{self.passkey.public_key}" }}]'

    def _cose(self) -> bytes:
        numbers = self.key.public_key().public_numbers()
        x, y = (number.to_bytes(32, "big") for number in (numbers.x, numbers.y))
        return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: x, -3: y})  # RFC 9053: EC2, ES256, P-256

    def sign(
        self,
        data: bytes,
        *,
        challenge: bytes | None = None,
        origin: str = ORIGIN,
        relying_party: str = RELYING_PARTY,
        flags: int = PRESENT | VERIFIED,
        act: str = "webauthn.get",
        **client: Any,
    ) -> bytes:
        """Return what the page saves after ``navigator.credentials.get``.

        Args:
            data: whose SHA-256 is the challenge.
            challenge: another one.
            origin: of the page that asks.
            relying_party: whose passkey it asks for.
            flags: what the authenticator says of its user.
            act: what the page asked for.
            client: more of the browser's own data.
        """
        asked = hashlib.sha256(data).digest() if challenge is None else challenge
        client_data = _client_data(act, asked, origin, client)
        authenticator_data = _head(relying_party, flags)
        signed = authenticator_data + hashlib.sha256(client_data).digest()
        response = {
            "authenticatorData": bytes_to_base64url(authenticator_data),
            "clientDataJSON": bytes_to_base64url(client_data),
            "signature": bytes_to_base64url(self.key.sign(signed, ec.ECDSA(hashes.SHA256()))),
        }
        return self._credential(response)

    def enrol(
        self, *, origin: str = ORIGIN, relying_party: str = RELYING_PARTY, flags: int = PRESENT | VERIFIED
    ) -> bytes:
        """Return what the page saves after ``navigator.credentials.create``."""
        attested = bytes(16) + struct.pack("!H", len(self.credential)) + self.credential + self._cose()
        data = _head(relying_party, flags | ATTESTED) + attested
        response = {
            "attestationObject": bytes_to_base64url(cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})),
            "clientDataJSON": bytes_to_base64url(_client_data("webauthn.create", secrets.token_bytes(32), origin, {})),
        }
        return self._credential(response)

    def _credential(self, response: dict[str, str]) -> bytes:
        identity = self.passkey.credential
        return json.dumps({"id": identity, "rawId": identity, "type": "public-key", "response": response}).encode()


def _head(relying_party: str, flags: int) -> bytes:
    return hashlib.sha256(relying_party.encode()).digest() + struct.pack("!BI", flags, 0)


def _client_data(act: str, challenge: bytes, origin: str, more: dict[str, Any]) -> bytes:
    content = {"type": act, "challenge": bytes_to_base64url(challenge), "origin": origin, "crossOrigin": False}
    return json.dumps({**content, **more}).encode()
