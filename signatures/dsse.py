"""DSSE envelopes: a typed payload and signatures over its pre-authentication encoding (PAE).

Source: github.com/secure-systems-lab/dsse, protocol.md v1.0 and envelope.md. Stricter than that: exactly one
signature, standard padded base64 in its one canonical form, and a payload in RFC 8785 bytes, so that any changed byte
of what was signed is found and an envelope has one digest.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from constitution import strict_json
from constitution.checksum import checksum_of
from constitution.errors import InvalidRequestError, UntrustedError
from constitution.release import Envelope
from constitution.trust.trust_policy import ClientKeyEntry, Scope, ServiceKey, TrustPolicy
from signatures import openpgp
from signatures.detect import detect
from signatures.verify import verify_bytes


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed (protocol.md, PAE): ``DSSEv1 LEN(type) type LEN(payload) payload``."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def statement_bytes(statement: Mapping[str, Any]) -> bytes:
    """Return the RFC 8785 bytes of a JSON object.

    Raises:
        InvalidRequestError: it holds what JSON or RFC 8785 cannot say.
    """
    try:
        return rfc8785.dumps(dict(statement))
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, TypeError) as error:
        raise InvalidRequestError(f"the statement cannot be written as canonical JSON: {error}") from error


def envelope_digest(envelope: Envelope) -> str:
    """Return the checksum over the envelope's RFC 8785 bytes; the name by which statements cite it."""
    return checksum_of(statement_bytes(envelope.model_dump(mode="json")))


def sign_ed25519(payload: bytes, payload_type: str, keyid: str, private_key: Ed25519PrivateKey) -> Envelope:
    """Sign with a service key."""
    return with_signature(payload, payload_type, keyid, private_key.sign(pae(payload_type, payload)))


def sign_openpgp(payload: bytes, payload_type: str, tsk_bytes: bytes, password: str | None = None) -> Envelope:
    """Sign with a person's OpenPGP key: a binary detached signature over the PAE; key id = its fingerprint.

    Raises:
        OpenPgpError: the key cannot sign.
    """
    signature = openpgp.sign_detached(pae(payload_type, payload), tsk_bytes, password)
    return with_signature(payload, payload_type, openpgp.fingerprint_of_key(tsk_bytes), signature)


def with_signature(payload: bytes, payload_type: str, keyid: str, signature: bytes) -> Envelope:
    """Return the envelope of a payload and a signature over its PAE.

    Args:
        payload: canonical bytes.
        payload_type: its DSSE type.
        keyid: the signer's fingerprint or identity.
        signature: OpenPGP, raw Ed25519, or a Sigstore bundle.
    """
    return Envelope(
        payloadType=payload_type,
        payload=base64.b64encode(payload).decode(),
        signatures=(Envelope.Signature(keyid=keyid, sig=base64.b64encode(signature).decode()),),
    )


def decode_base64(text: str, what: str) -> bytes:
    """Decode padded standard base64 in its one canonical form.

    Raises:
        UntrustedError: anything else.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UntrustedError(f"the {what} is not base64") from error
    if base64.b64encode(data).decode() != text:
        raise UntrustedError(f"the {what} is not in canonical base64")
    return data


def payload_of(envelope: Envelope, payload_type: str, *, max_bytes: int = strict_json.MAX_BYTES) -> dict[str, Any]:
    """Return the payload's JSON object; says nothing about who signed it.

    Raises:
        UntrustedError: another type, more than ``max_bytes`` bytes, not canonical, or no object.
    """
    if envelope.payloadType != payload_type:
        raise UntrustedError(f"the envelope holds {envelope.payloadType[:80]!r}, not {payload_type!r}")
    data = decode_base64(envelope.payload, "payload")
    try:
        value = strict_json.read(data, max_bytes=max_bytes)
    except strict_json.StrictJsonError as error:
        raise UntrustedError(f"the payload cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise UntrustedError("the payload is no JSON object")
    try:
        canonical = statement_bytes(value)
    except InvalidRequestError as error:
        raise UntrustedError(f"the payload has no canonical form: {error.message}") from error
    if canonical != data:
        raise UntrustedError("the payload is not in canonical form (RFC 8785)")
    return value


def _only_signature(envelope: Envelope) -> tuple[str, bytes]:
    if len(envelope.signatures) != 1:
        raise UntrustedError(f"the envelope holds {len(envelope.signatures)} signatures, not one")
    signature = envelope.signatures[0]
    return signature.keyid, decode_base64(signature.sig, "signature")


def verify_service(envelope: Envelope, trust: TrustPolicy) -> str:
    """Return the id of the service whose pinned key signed the envelope.

    Raises:
        UntrustedError: an unknown key id, or the signature does not verify.
    """
    return _verify_pinned(envelope, trust.service, "statement")


def verify_assessor(envelope: Envelope, trust: TrustPolicy) -> str:
    """Return the id of the assessor whose pinned key signed the envelope.

    Raises:
        UntrustedError: an unknown key id, or the signature does not verify.
    """
    return _verify_pinned(envelope, trust.assessor, "attestation")


def verify_client(envelope: Envelope, trust: TrustPolicy, scope: Scope) -> str:
    """Return the id of the client whose token key signed the envelope; the trust policy grants it this scope.

    Raises:
        UntrustedError: an unknown key id, one without the scope, or the signature does not verify.
    """

    def granted(client_id: str) -> ClientKeyEntry | None:
        client = trust.client(client_id)
        return client if client is not None and scope in client.scopes else None

    return _verify_pinned(envelope, granted, "manifest")


def _verify_pinned(envelope: Envelope, pinned: Callable[[str], ServiceKey | ClientKeyEntry | None], what: str) -> str:
    keyid, signature = _only_signature(envelope)
    key = pinned(keyid)
    if key is None:
        raise UntrustedError(f"the {what} is signed by {keyid[:64]!r}, which the trust policy does not know")
    message = pae(envelope.payloadType, decode_base64(envelope.payload, "payload"))
    try:
        Ed25519PublicKey.from_public_bytes(key.raw()).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise UntrustedError(f"the signature of {key.id} on the {what} does not verify") from error
    return key.id


def verify_person(envelope: Envelope, trust: TrustPolicy, now: datetime) -> str:
    """Return the id of the person who signed the envelope, by OpenPGP, Sigstore or a passkey over its PAE.

    The key id must be that person's fingerprint (OpenPGP, passkey) or identity (Sigstore): an envelope says one thing.

    Raises:
        UntrustedError: nobody in the trust policy signed it.
    """
    keyid, signature = _only_signature(envelope)
    kind = detect(signature)
    if kind == "openpgp":
        people = [p for p in trust.people if any(key.fingerprint == keyid for key in p.openpgp)]
    elif kind == "passkey":
        people = [p for p in trust.people if any(key.fingerprint == keyid for key in p.passkeys)]
    else:
        people = [p for p in trust.people if any(entry.identity == keyid for entry in p.sigstore)]
    if not people:
        raise UntrustedError(f"the envelope is signed by {keyid[:80]!r}, who is not in the trust policy")
    message = pae(envelope.payloadType, decode_base64(envelope.payload, "payload"))
    results = verify_bytes(message, signature, people, trust, now)
    person, detail = results[0]
    if len(results) != 1 or person is None:
        raise UntrustedError(f"the signature on the envelope is refused: {detail}")
    return person
