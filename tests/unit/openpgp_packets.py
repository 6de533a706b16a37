"""Makes OpenPGP certificates packet by packet (RFC 9580, version 4, Ed25519), as a hostile or careless owner could.

Shares no code with what reads them: a test needs bindings that no tool would write.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

BINARY, POSITIVE, BINDING, PRIMARY_BINDING, DIRECT, SUBKEY_REVOCATION = 0x00, 0x13, 0x18, 0x19, 0x1F, 0x28
CERTIFY, SIGN, ENCRYPT = 0x01, 0x02, 0x0C
_OID = bytes.fromhex("092b06010401da470f01")


def _seconds(moment: datetime) -> bytes:
    return int(moment.timestamp()).to_bytes(4, "big")


def _number(data: bytes) -> bytes:
    stripped = data.lstrip(b"\0")
    return (len(stripped) * 8 - (8 - stripped[0].bit_length()) if stripped else 0).to_bytes(2, "big") + stripped


def packet(tag: int, body: bytes) -> bytes:
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body


def _part(kind: int, data: bytes) -> bytes:
    return bytes([len(data) + 1, kind]) + data


@dataclass(frozen=True)
class Key:
    """One key with the date that its packet bears."""

    created: datetime
    secret: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def body(self) -> bytes:
        raw = self.secret.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return b"\x04" + _seconds(self.created) + b"\x16" + _OID + _number(b"\x40" + raw)

    @property
    def framed(self) -> bytes:
        return b"\x99" + len(self.body).to_bytes(2, "big") + self.body

    @property
    def fingerprint(self) -> str:
        return hashlib.sha1(self.framed).hexdigest()  # noqa: S324 - what version 4 says

    def sign(self, kind: int, covered: bytes, made: datetime, parts: Sequence[bytes] = ()) -> bytes:
        """Return the body of a signature packet."""
        issuer = _part(33, b"\x04" + bytes.fromhex(self.fingerprint))
        hashed = _part(2, _seconds(made)) + issuer + b"".join(parts)
        head = bytes([4, kind, 22, 8]) + len(hashed).to_bytes(2, "big") + hashed
        digest = hashlib.sha256(covered + head + b"\x04\xff" + len(head).to_bytes(4, "big")).digest()
        raw = self.secret.sign(digest)
        return head + b"\0\0" + digest[:2] + _number(raw[:32]) + _number(raw[32:])

    def document(self, data: bytes, made: datetime) -> bytes:
        """Return a detached signature file."""
        return packet(2, self.sign(BINARY, data, made))

    def bind(
        self,
        subkey: "Key",
        made: datetime,
        *,
        flags: int = SIGN,
        lives: timedelta | None = None,
        lasts: timedelta | None = None,
        by: "Key | None" = None,
    ) -> bytes:
        """Return a SubkeyBinding packet; ``by`` another key makes a forged one."""
        back = subkey.sign(PRIMARY_BINDING, self.framed + subkey.framed, made)
        parts = [_part(27, bytes([flags]))]
        parts += [_part(9, int(lives.total_seconds()).to_bytes(4, "big"))] if lives is not None else []
        parts += [_part(3, int(lasts.total_seconds()).to_bytes(4, "big"))] if lasts is not None else []
        parts += [_part(32, back)] if flags & SIGN else []
        return packet(2, (by or self).sign(BINDING, self.framed + subkey.framed, made, parts))

    def revoke(self, subkey: "Key", made: datetime, *, by: "Key | None" = None, soft: bool = False) -> bytes:
        """Return a SubkeyRevocation packet; ``soft``: superseded, which Sequoia counts from its date on only."""
        parts = [_part(29, b"\x01")] if soft else []
        return packet(2, (by or self).sign(SUBKEY_REVOCATION, self.framed + subkey.framed, made, parts))

    def user(self, name: bytes, made: datetime, *, flags: int = CERTIFY | SIGN) -> bytes:
        """Return a user id with its self-certification."""
        covered = self.framed + b"\xb4" + len(name).to_bytes(4, "big") + name
        return packet(13, name) + self.certify(covered, made, flags)

    def certify(self, covered: bytes, made: datetime, flags: int) -> bytes:
        return packet(2, self.sign(POSITIVE, covered, made, [_part(27, bytes([flags]))]))

    def certificate(self, *after: bytes, flags: int = CERTIFY | SIGN, name: bytes = b"Hand <h@example.org>") -> bytes:
        """Return primary key and user id, then whatever packets are given."""
        return packet(6, self.body) + self.user(name, self.created, flags=flags) + b"".join(after)


def subkey(key: Key) -> bytes:
    return packet(14, key.body)
