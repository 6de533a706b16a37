"""The self-signatures of an OpenPGP certificate: bindings and revocations of its keys, each verified here.

Sequoia verifies a binding only when it needs one to check a signature, at the time that the signature claims; its
Python package shows certificate packets as they are, verified or not. So a forged, broken or future binding that was
appended would hide an expiry, a forged revocation would block a good key, and a key that may not sign any more could
sign with an earlier date. Format: RFC 9580, sections 5.2.4 (computing signatures) and 5.5.2 (public keys).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, utils
from pysequoia.packet import SignatureType, Tag

CLOCK_SKEW = timedelta(minutes=5)  # a signer's clock may be this far ahead of ours
MAX_SELF_SIGNATURES = 512  # bindings and revocations in one file, each tried on each key; a real one has under ten
MAX_KEYS = 64  # keys in one certificate

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey

_RSA, _ECDSA, _EDDSA, _ED25519, _ED448 = (1, 3), 19, 22, 27, 28  # RFC 9580, section 9.1
_CURVES: dict[bytes, type[ec.EllipticCurve]] = {
    bytes.fromhex("2a8648ce3d030107"): ec.SECP256R1,
    bytes.fromhex("2b81040022"): ec.SECP384R1,
    bytes.fromhex("2b81040023"): ec.SECP521R1,
}
_ED25519_LEGACY = bytes.fromhex("2b06010401da470f01")
_HASHES: dict[int, hashes.HashAlgorithm] = {  # SHA-1 too: against it a second preimage of a self-signature is unknown
    2: hashes.SHA1(),  # noqa: S303
    8: hashes.SHA256(),
    9: hashes.SHA384(),
    10: hashes.SHA512(),
    11: hashes.SHA224(),
    12: hashes.SHA3_256(),
    14: hashes.SHA3_512(),
}
_USER_ID_KINDS = (
    SignatureType.GenericCertification,
    SignatureType.PersonaCertification,
    SignatureType.CasualCertification,
    SignatureType.PositiveCertification,
)


@dataclass(frozen=True, slots=True)
class SelfSignature:
    """One verified statement about a key.

    Args:
        component: which part of the certificate it is about; only the newest about each part counts.
        created: when it was made.
        ends_at: when the statement itself ends; None for never.
        signing: whether the key may sign; None where it does not say.
        expires_at: when the key expires; None for never.
    """

    component: str
    created: datetime
    ends_at: datetime | None
    signing: bool | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a certificate with what is verified about it; ``material`` is equal for the same key in any wrapping."""

    fingerprint: str
    key_id: str
    primary: bool
    material: bytes
    statements: tuple[SelfSignature, ...]
    revoked_at: tuple[datetime, ...]

    def refusal(self, now: datetime, today: datetime) -> str | None:
        """Return why this key may not sign, or None if it may.

        Args:
            now: the time to judge by: statements that are later by more than `CLOCK_SKEW` do not count.
            today: revocations until then count, whenever the key signed.
        """
        name = "primary key" if self.primary else "signing subkey"
        if any(moment <= today + CLOCK_SKEW for moment in self.revoked_at):
            return f"the {name} is revoked"
        newest = self._newest(now + CLOCK_SKEW)
        if not newest and not self.primary:
            return "the signing subkey is not bound to the certificate by any signature of its primary key"
        for statement in newest:
            if statement.signing is False or (statement.signing is None and not self.primary):
                return f"the {name} may not sign: so says its certificate since {statement.created.isoformat()}"
            if self.primary:
                continue  # Sequoia looks at the certificate's own expiry
            if statement.ends_at is not None and statement.ends_at <= now:
                return f"the binding of the {name} expired at {statement.ends_at.isoformat()}"
            if statement.expires_at is not None and statement.expires_at <= now:
                return f"the {name} expired at {statement.expires_at.isoformat()}"
        return None

    def _newest(self, until: datetime) -> list[SelfSignature]:
        """Return the newest statement about each component; all of them where several are of one second."""
        latest: dict[str, datetime] = {}
        counted = [statement for statement in self.statements if statement.created <= until]
        for statement in counted:
            latest[statement.component] = max(statement.created, latest.get(statement.component, statement.created))
        return [statement for statement in counted if statement.created == latest[statement.component]]


def read_keys(packets: Iterable[Any]) -> tuple[Key, ...]:
    """Read the keys of one certificate with every self-signature that verifies.

    Args:
        packets: those of one certificate; the first is its primary key.

    Raises:
        ValueError: an algorithm that cannot be checked here, too many packets, or a damaged packet.
    """
    keys: list[Any] = []
    signatures: list[Any] = []
    users: list[tuple[bytes, list[Any]]] = []
    in_user = False
    for packet in packets:
        if packet.tag in (Tag.PublicKey, Tag.PublicSubkey):
            keys.append(packet)
            in_user = False
        elif packet.tag == Tag.UserID:
            users.append((bytes(packet.body), []))
            in_user = True
        elif packet.tag == Tag.Signature:
            if packet.signature_type in _USER_ID_KINDS and in_user:
                users[-1][1].append(packet)
            else:
                signatures.append(packet)
        else:
            in_user = False
    if not keys or len(keys) > MAX_KEYS:
        raise ValueError(f"it holds {len(keys)} keys; 1 to {MAX_KEYS} are taken")
    primary = bytes(keys[0].body)
    owner = public_key(primary)
    if owner is None:
        raise ValueError("its primary key is neither RSA, ECDSA on a NIST curve, Ed25519 nor Ed448")
    own = [s for s in signatures if s.signature_type in (SignatureType.SubkeyBinding, SignatureType.SubkeyRevocation)]
    if len(own) > MAX_SELF_SIGNATURES:
        raise ValueError(f"it holds {len(own)} bindings and revocations; at most {MAX_SELF_SIGNATURES} are taken")
    direct = [("key", packet) for packet in signatures if packet.signature_type == SignatureType.DirectKey]
    hashed_primary = _framed(primary)
    about_primary = [
        _statement(component, keys[0], packet)
        for component, packet, covered in (
            *((component, packet, hashed_primary) for component, packet in direct[:MAX_SELF_SIGNATURES]),
            *(
                (f"user {index}", packet, hashed_primary + b"\xb4" + len(name).to_bytes(4, "big") + name)
                for index, (name, about) in enumerate(users[:MAX_SELF_SIGNATURES])
                for packet in about[:MAX_SELF_SIGNATURES]
            ),
        )
        if packet.signature_created and _verifies(owner, packet, covered)
    ]
    found = [Key(keys[0].fingerprint, keys[0].key_id, True, material(primary), tuple(about_primary), ())]
    for packet in keys[1:]:
        covered = hashed_primary + _framed(bytes(packet.body))
        mine = [s for s in own if s.signature_created and _verifies(owner, s, covered)]
        bindings = [s for s in mine if s.signature_type == SignatureType.SubkeyBinding]
        revocations = [s.signature_created for s in mine if s.signature_type == SignatureType.SubkeyRevocation]
        found.append(
            Key(
                packet.fingerprint,
                packet.key_id,
                False,
                material(bytes(packet.body)),
                tuple(_statement("subkey", packet, s) for s in bindings),
                tuple(revocations),
            )
        )
    return tuple(found)


def _statement(component: str, key: Any, packet: Any) -> SelfSignature:
    flags, period = packet.key_flags, packet.key_validity_period
    return SelfSignature(
        component=component,
        created=packet.signature_created,
        ends_at=packet.signature_expiration_time,
        signing=None if flags is None else bool(flags.signing),
        expires_at=key.key_created + period if period else None,
    )


def material(body: bytes) -> bytes:
    """Return a value that is equal for two key packets exactly if they hold the same public key, of any date."""
    key = public_key(body)
    if key is None:
        return bytes([body[5]]) + _material_of(body)
    return _der(key)


def ed25519_material(raw: bytes) -> bytes:
    """Return the `material` of a raw Ed25519 public key (32 bytes)."""
    return _der(ed25519.Ed25519PublicKey.from_public_bytes(raw))


def _der(key: PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _material_of(body: bytes) -> bytes:
    return body[6:] if body[0] == 4 else body[10:]


def public_key(body: bytes) -> PublicKey | None:
    """Read the public key of a key packet's body; None for an algorithm that is not checked here.

    Raises:
        ValueError: the packet is damaged.
    """
    if len(body) < 10 or body[0] not in (4, 6):
        raise ValueError("a key packet is damaged, or of a version before 4")
    algorithm, rest = body[5], _material_of(body)
    try:
        if algorithm in _RSA:
            n, e = _numbers(rest, 2)
            return rsa.RSAPublicNumbers(int.from_bytes(e, "big"), int.from_bytes(n, "big")).public_key()
        if algorithm == _ED25519:
            return ed25519.Ed25519PublicKey.from_public_bytes(rest)
        if algorithm == _ED448:
            return ed448.Ed448PublicKey.from_public_bytes(rest)
        if algorithm in (_ECDSA, _EDDSA):
            oid, (point,) = rest[1 : 1 + rest[0]], _numbers(rest[1 + rest[0] :], 1)
            if algorithm == _EDDSA and oid == _ED25519_LEGACY and point[:1] == b"\x40":
                return ed25519.Ed25519PublicKey.from_public_bytes(point[1:])
            if algorithm == _ECDSA and oid in _CURVES:
                return ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[oid](), point)
    except (IndexError, UnsupportedAlgorithm) as error:
        raise ValueError("a key packet is damaged") from error
    return None


def _numbers(data: bytes, count: int) -> list[bytes]:
    """Read multiprecision integers: two bytes of length in bits, then the number."""
    found = []
    for _ in range(count):
        size = (int.from_bytes(data[:2], "big") + 7) // 8
        if len(data) < 2 + size:
            raise ValueError("a number is cut short")
        found.append(data[2 : 2 + size])
        data = data[2 + size :]
    return found


def _framed(body: bytes) -> bytes:
    """Return a key packet's body as signatures cover it."""
    if body[0] == 4:
        return b"\x99" + len(body).to_bytes(2, "big") + body
    return b"\x9b" + len(body).to_bytes(4, "big") + body


def _verifies(owner: PublicKey, packet: Any, covered: bytes) -> bool:
    try:
        return _check(owner, bytes(packet.body), covered)
    except (ValueError, IndexError, InvalidSignature, UnsupportedAlgorithm):
        return False


def _check(owner: PublicKey, body: bytes, covered: bytes) -> bool:
    version, algorithm, hash_id = body[0], body[2], body[3]
    if version not in (4, 6) or hash_id not in _HASHES:
        return False
    wide = 2 if version == 4 else 4  # bytes that hold the length of an area of subpackets
    end = 4 + wide + int.from_bytes(body[4 : 4 + wide], "big")
    rest = body[end + wide + int.from_bytes(body[end : end + wide], "big") :]
    prefix, rest = rest[:2], rest[2:]
    salt = b""
    if version == 6:
        salt, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
    kind = _HASHES[hash_id]
    trailer = bytes([version, 0xFF]) + (end & 0xFFFFFFFF).to_bytes(4, "big")
    digest = hashlib.new(kind.name.replace("sha3-", "sha3_"), salt + covered + body[:end] + trailer).digest()
    if digest[:2] != prefix:  # cheap, and as well as never right for a signature about another key
        return False
    if isinstance(owner, rsa.RSAPublicKey) and algorithm in _RSA:
        number = _numbers(rest, 1)[0].rjust(owner.key_size // 8, b"\0")
        owner.verify(number, digest, padding.PKCS1v15(), utils.Prehashed(kind))
    elif isinstance(owner, ec.EllipticCurvePublicKey) and algorithm == _ECDSA:
        r, s = (int.from_bytes(number, "big") for number in _numbers(rest, 2))
        owner.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(kind)))
    elif isinstance(owner, ed25519.Ed25519PublicKey) and algorithm in (_EDDSA, _ED25519):
        raw = b"".join(n.rjust(32, b"\0") for n in _numbers(rest, 2)) if algorithm == _EDDSA else rest
        owner.verify(raw, digest)
    elif isinstance(owner, ed448.Ed448PublicKey) and algorithm == _ED448:
        owner.verify(rest, digest)
    else:
        return False
    return True
