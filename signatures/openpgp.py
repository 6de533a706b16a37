"""OpenPGP detached signatures by pysequoia (Sequoia), with the rules that it leaves to its callers.

Sequoia checks the mathematics, the binding of subkeys and its policy on algorithms (no SHA-1, no RSA below 2048).
Here in addition: every packet of a signature file is looked at and must be a binary document signature, in at most
one armor block; certificates are of the pinned fingerprint, without secret parts, and all copies in a file are merged,
so that an old copy cannot hide a revocation; a revoked or expired certificate or subkey signs nothing, whenever it
signed; nothing is signed in the future. Why not gpg: docs/adr/0004-signatures.md. Format: RFC 9580.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, reduce
from typing import Any, TypeVar

import pysequoia
from pysequoia.packet import HashAlgorithm, PacketPile, SignatureType, Tag

from constitution.errors import InvalidRequestError, UntrustedError
from constitution.trust.trust_policy import OpenPgpKey, Person, TrustPolicy
from signatures.detect import MAX_SIGNATURE
from signatures.openpgp_selfsigs import CLOCK_SKEW, Key, ed25519_material, read_keys

MAX_PACKETS = 16  # signatures in one file
MAX_CERTIFICATE = 1024 * 1024

_ARMOR_LINE = b"-----BEGIN PGP"
_SECRET_TAGS = (Tag.SecretKey, Tag.SecretSubkey)
_WEAK_HASHES = (HashAlgorithm.MD5, HashAlgorithm.SHA1, HashAlgorithm.RipeMD)
_STUB = re.compile(rb"[\xfd-\xff].\x65.GNU([\x01\x02])", re.DOTALL)
"""What GnuPG writes in place of a secret part: S2K usage, cipher, type 101, hash, "GNU", and where the part is
(GnuPG, doc/DETAILS, "GNU extensions to the S2K algorithm")."""
_ON_TOKEN = b"\x02"
_Result = TypeVar("_Result")


class OpenPgpError(UntrustedError):
    """A signature, certificate or key that is not accepted; the message says why."""


def _sequoia(action: Callable[[], _Result], what: str) -> _Result:
    """Run a call into Sequoia: any exception, a Rust panic too (a BaseException), means refused."""
    try:
        return action()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - pyo3 raises a Rust panic as a BaseException
        message = " ".join(str(error).partition("Stack backtrace")[0].split())
        raise OpenPgpError(f"{what}: {message[:200] or type(error).__name__}") from None


class Certificate:
    """One certificate, pinned by fingerprint.

    Args:
        data: the file, armored or binary.
        fingerprint: lower-case hex of the primary key.

    Raises:
        OpenPgpError: not exactly one certificate of that fingerprint, secret parts, several armor blocks, or a key of
            an algorithm or length that Sequoia's policy does not take any more.
    """

    def __init__(self, data: bytes, fingerprint: str) -> None:
        if len(data) > MAX_CERTIFICATE:
            raise OpenPgpError(f"a certificate file of {len(data)} bytes; at most {MAX_CERTIFICATE} are taken")
        if data.count(_ARMOR_LINE) > 1:
            raise OpenPgpError("the certificate file holds several armor blocks; only the first would be read")
        tags = _sequoia(lambda: [p.tag for p in PacketPile.from_bytes(data)], "the certificate file cannot be read")
        if any(tag in _SECRET_TAGS for tag in tags):
            raise OpenPgpError("the certificate file holds a secret key; export the public part only")
        copies = _sequoia(lambda: pysequoia.Cert.split_bytes(data), "the certificate file cannot be read")
        if not copies or any(copy.fingerprint != fingerprint for copy in copies):
            found = ", ".join(copy.fingerprint for copy in copies[:4]) or "none"
            raise OpenPgpError(f"the certificate file holds {found}, not exactly {fingerprint}")
        merged = _sequoia(lambda: reduce(lambda one, other: one.merge(other), copies), "copies cannot be merged")
        self.fingerprint = fingerprint
        self.cert = merged
        self.keys = _sequoia(lambda: read_keys(PacketPile.from_bytes(bytes(merged))), "the certificate is not accepted")
        self._revoked = bool(_sequoia(lambda: merged.is_revoked, "the certificate is not accepted"))
        self._expires_at: datetime | None = _sequoia(lambda: merged.expiration, "the certificate is not accepted")

    def issuer(self, issuers: Sequence[str]) -> Key | None:
        """Return the key that a signature names as its issuer (by fingerprint or key id), if it is of this one."""
        return next((key for key in self.keys if key.fingerprint in issuers or key.key_id in issuers), None)

    def refusal(self, fingerprint: str, now: datetime) -> str | None:
        """Return why a key of this certificate may not sign now, or None if it may.

        ``now`` may be in the past: a release of then is judged by the bindings of then. A revocation counts until
        today all the same, as Sequoia counts those of the whole certificate.
        """
        if self._revoked:
            return "the certificate is revoked"
        if self._expires_at is not None and self._expires_at <= now:
            return f"the certificate expired at {self._expires_at.isoformat()}"
        key = next((key for key in self.keys if key.fingerprint == fingerprint), None)
        if key is None:
            return f"the key {fingerprint} is not in the certificate"
        return key.refusal(now, max(now, datetime.now(UTC)))


@lru_cache(maxsize=256)
def certificate(data: bytes, fingerprint: str) -> Certificate:
    """Return the certificate of a file; kept, since the same few are asked for at each verification.

    Raises:
        OpenPgpError: as `Certificate`.
    """
    return Certificate(data, fingerprint)


@dataclass(frozen=True, slots=True)
class OpenPgpSignature:
    """The result of one signature packet: ``person`` is set only if it verified."""

    person: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class SignaturePacket:
    """One signature packet and what it says of itself; nothing of it is proved. Issuers: fingerprint, then key id."""

    data: bytes
    tag: Any
    kind: Any
    created: datetime | None
    expires_at: datetime | None
    issuers: tuple[str, ...]
    hash_algorithm: Any

    @classmethod
    def of(cls, packet: Any) -> "SignaturePacket":
        """Read a packet. Each getter of the library may raise: for a type it does not know, for instance."""
        issuers = (packet.issuer_fingerprint, packet.issuer_key_id)
        return cls(
            data=bytes(packet),
            tag=packet.tag,
            kind=packet.signature_type,
            created=packet.signature_created,
            expires_at=packet.signature_expiration_time,
            issuers=tuple(issuer.lower() for issuer in issuers if issuer),
            hash_algorithm=packet.hash_algorithm,
        )


def split(data: bytes) -> tuple[SignaturePacket, ...]:
    """Return the signature packets of a file.

    Raises:
        OpenPgpError: too large, several armor blocks, text around the block, trailing bytes, a packet that is not a
            binary document signature, or more than 16.
    """
    if len(data) > MAX_SIGNATURE:
        raise OpenPgpError(f"a signature file of {len(data)} bytes; at most {MAX_SIGNATURE} are taken")
    if data[:1] and not data[0] & 0x80:
        text = data.strip(b" \t\r\n")
        if data.count(_ARMOR_LINE) != 1:
            raise OpenPgpError("the file holds several armor blocks, or none; only the first would be read")
        if not text.startswith(_ARMOR_LINE) or not text.endswith(b"-----END PGP SIGNATURE-----"):
            raise OpenPgpError("the file holds text around the armored signature")
    pile = _sequoia(lambda: PacketPile.from_bytes(data), "the signature cannot be read")
    if not 1 <= len(pile) <= MAX_PACKETS:
        raise OpenPgpError(f"the file holds {len(pile)} packets; 1 to {MAX_PACKETS} signatures are taken")
    packets = _sequoia(lambda: tuple(SignaturePacket.of(p) for p in pile), "the signature cannot be read")
    for packet in packets:
        if packet.tag != Tag.Signature or packet.kind != SignatureType.Binary:
            raise OpenPgpError(f"the file holds {packet.tag} {packet.kind or ''}, not a document signature")
    return packets


def verify(
    document: bytes, signature: bytes, people: Sequence[Person], trust: TrustPolicy, now: datetime
) -> tuple[OpenPgpSignature, ...]:
    """Check every signature packet of a file against the certificates of ``people``.

    Args:
        document: the signed bytes.
        signature: one file, armored or binary.
        people: who may have signed.
        trust: holds the certificate files.
        now: the time to judge by; aware.

    Raises:
        OpenPgpError: the file as a whole is refused. A bad signature inside it is a result, not an error.
    """
    known: list[tuple[Person, Certificate]] = []
    broken = ""
    for person in people:
        for key in person.openpgp:
            try:
                known.append((person, _load(key, trust)))
            except OpenPgpError as error:  # one broken certificate must not keep the others from signing
                broken = f" ({person.id}: {error.message})"
    return tuple(_judge(document, packet, known, broken, now) for packet in split(signature))


def _load(key: OpenPgpKey, trust: TrustPolicy) -> Certificate:
    data = trust.files.get(key.certificate)
    if data is None:
        raise OpenPgpError(f"the certificate file {key.certificate} was not loaded")
    return certificate(data, key.fingerprint)


def _judge(
    document: bytes,
    packet: SignaturePacket,
    known: Sequence[tuple[Person, Certificate]],
    broken: str,
    now: datetime,
) -> OpenPgpSignature:
    candidates = [(person, cert, key) for person, cert in known if (key := cert.issuer(packet.issuers)) is not None]
    if not candidates:
        issuer = packet.issuers[0] if packet.issuers else "an unnamed key"
        return OpenPgpSignature(None, f"made by {issuer}, which belongs to nobody who may sign here{broken}")
    if packet.created is None:
        return OpenPgpSignature(None, "says no time of its making")
    if packet.created > now + CLOCK_SKEW:
        return OpenPgpSignature(None, f"is dated in the future: {packet.created.isoformat()}")
    if packet.expires_at is not None and packet.expires_at <= now:
        return OpenPgpSignature(None, f"expired at {packet.expires_at.isoformat()}")
    detail = ""
    for person, cert, key in candidates:
        try:
            signing_key = _check(document, packet, cert)
        except OpenPgpError as error:
            detail = f"by {person.id}: {cert.refusal(key.fingerprint, now) or _weakness(packet, error)}"
            continue
        refusal = cert.refusal(signing_key, now)
        if refusal is None:
            return OpenPgpSignature(person.id, f"OpenPGP {cert.fingerprint}, made {packet.created.isoformat()}")
        detail = f"by {person.id}: {refusal}"
    return OpenPgpSignature(None, detail)


def _check(document: bytes, packet: SignaturePacket, cert: Certificate) -> str:
    """Return the fingerprint of the key of ``cert`` that made the signature."""
    sig = _sequoia(lambda: pysequoia.Sig.from_bytes(packet.data), "the signature cannot be read")
    result = _sequoia(
        lambda: pysequoia.verify(bytes=document, store=lambda _: [cert.cert], signature=sig), "does not verify"
    )
    valid = [v for v in result.valid_sigs if v.certificate == cert.fingerprint]
    if len(valid) != 1 or len(result.valid_sigs) != 1:
        raise OpenPgpError("does not verify")
    return str(valid[0].signing_key)


def _weakness(packet: SignaturePacket, error: OpenPgpError) -> str:
    """Derive a reason from the signature's own fields: Sequoia says only that none was valid."""
    if packet.hash_algorithm in _WEAK_HASHES:
        return f"uses {str(packet.hash_algorithm).rpartition('.')[2]}, which can be forged"
    if "no valid signatures" in error.message:
        return "does not match the document, or its key may not sign"
    return error.message


def check_certificates(trust: TrustPolicy) -> None:
    """Check every certificate file of a trust policy, and that no key, subkeys included, has two owners.

    Keys are compared by their material: the same key under another date has another fingerprint and is the same key.
    A service or client that holds a person's key could sign as that person, so these are owners too.

    Raises:
        InvalidRequestError: with every problem.
    """
    problems: list[str] = []
    owners = {
        ed25519_material(entry.raw()): f"{kind} {entry.id}"
        for kind, entries in (("service", trust.services), ("client", trust.clients))
        for entry in entries
    }
    for person in trust.people:
        for key in person.openpgp:
            try:
                loaded = _load(key, trust)
            except OpenPgpError as error:
                problems.append(f"{key.certificate}: {error.message}")
                continue
            for part in loaded.keys:
                owner = owners.setdefault(part.material, f"person {person.id}")
                if owner != f"person {person.id}":
                    problems.append(f"{key.certificate}: the key {part.fingerprint} is the key of {owner} too")
    if problems:
        raise InvalidRequestError("trust.toml names certificates that cannot be used: " + "; ".join(problems))


def _tsk(tsk: bytes) -> Any:
    if tsk.count(_ARMOR_LINE) > 1:
        raise OpenPgpError("the key file holds several armor blocks")
    return _sequoia(lambda: pysequoia.Tsk.from_bytes(tsk), "the file holds no OpenPGP secret key")


def generate_key(name: str) -> tuple[bytes, bytes, str]:
    """Make a new Ed25519 key with a signing subkey (RFC 4880 format: every tool of today reads it).

    Args:
        name: user id, e.g. ``Mara Lindqvist <mara@example.org>``.

    Returns:
        The armored secret key (not locked by a passphrase), the armored certificate, its fingerprint.
    """
    tsk = pysequoia.Tsk.generate(user_id=name)
    cert = tsk.extract_certificate()
    return str(tsk).encode(), str(cert).encode(), cert.fingerprint


def certificate_of(data: bytes, *, what: str) -> tuple[str, str]:
    """Return the fingerprint of a certificate file, and its owner's name by the first user id ("" where there is none).

    Args:
        data: the file, armored or binary; one certificate, without secret parts.
        what: whose it is, for messages.

    Raises:
        OpenPgpError: it is no such file, or none of its keys may sign now.
    """
    tags = _sequoia(lambda: [p.tag for p in PacketPile.from_bytes(data)], f"{what} cannot be read")
    if any(tag in _SECRET_TAGS for tag in tags):
        raise OpenPgpError(f"{what} holds a secret key", hint="give the public part alone: gpg --armor --export")
    cert = _sequoia(lambda: pysequoia.Cert.from_bytes(data), f"{what} is no certificate")
    fingerprint = str(cert.fingerprint)
    owner = Certificate(data, fingerprint)
    now = datetime.now(UTC)
    refusals = [owner.refusal(key.fingerprint, now) for key in owner.keys]
    if None not in refusals:
        raise OpenPgpError(f"{what} cannot sign: " + "; ".join(dict.fromkeys(filter(None, refusals))))
    users = _sequoia(lambda: [str(user) for user in cert.user_ids], f"{what} cannot be read")
    return fingerprint, users[0].partition("<")[0].strip() if users else ""


def fingerprint_of_key(tsk: bytes) -> str:
    """Return the fingerprint of a secret key file's primary key.

    Raises:
        OpenPgpError: it holds no secret key.
    """
    return str(_tsk(tsk).extract_certificate().fingerprint)


def is_locked(tsk: bytes) -> bool:
    """Say whether signing needs a passphrase.

    Raises:
        OpenPgpError: the file holds no secret key, or none that a passphrase would let sign: it has expired or is
            revoked, or its secret part is on a token.
    """
    key = _tsk(tsk)
    try:
        _sequoia(key.signer, "locked")
    except OpenPgpError:
        _require_secret(tsk, key)
        return True
    return False


def _require_secret(tsk: bytes, key: Any) -> None:
    """Refuse a key file in which no key that may sign has its secret part."""
    public = key.extract_certificate()
    owner = Certificate(bytes(public), public.fingerprint)
    now = datetime.now(UTC)
    refusals = {part.fingerprint: owner.refusal(part.fingerprint, now) for part in owner.keys}
    able = [fingerprint for fingerprint, refusal in refusals.items() if refusal is None]
    if not able:
        raise OpenPgpError("the key cannot sign: " + "; ".join(dict.fromkeys(filter(None, refusals.values()))))
    pile = _sequoia(lambda: list(PacketPile.from_bytes(tsk)), "the key file cannot be read")
    secrets = {packet.fingerprint: bytes(packet.body) for packet in pile if packet.tag in _SECRET_TAGS}
    stubs = {name: found[1] for name in able if (found := _STUB.search(secrets.get(name, b"")))}
    if any(name in secrets and name not in stubs for name in able):
        return
    if _ON_TOKEN in stubs.values():
        raise OpenPgpError(
            "the secret part of this key is on a token (a smart card or security key); the file holds a stub of it",
            hint=f"gpg --local-user {public.fingerprint} --detach-sign FILE  # FILE: the document; for all else use "
            "--print-statement FILE first, which writes the bytes to sign",
        )
    raise OpenPgpError(
        "the file lacks the secret part of every key that may sign", hint="export the secret key with its secret parts"
    )


def sign_detached(document: bytes, tsk: bytes, password: str | None = None) -> bytes:
    """Sign bytes; a binary detached signature.

    Raises:
        OpenPgpError: no secret key that can sign, or a wrong passphrase.
    """
    key = _tsk(tsk)
    signer = _sequoia(lambda: key.signer(password), "the key cannot sign (locked, or a wrong passphrase)")
    return bytes(
        _sequoia(
            lambda: pysequoia.sign(signer, document, mode=pysequoia.SignatureMode.DETACHED, armor=False),
            "signing failed",
        )
    )
