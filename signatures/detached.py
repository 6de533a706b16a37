"""Envelopes around a signature that was made elsewhere: by gpg with a smart card, another Sigstore client, a passkey.

The bytes are a statement's DSSE pre-authentication encoding (PAE): `dsse.pae`.
"""

import re
from datetime import datetime

from constitution.errors import UntrustedError
from constitution.release import Envelope
from constitution.trust.trust_policy import Person, TrustPolicy
from signatures import dsse, openpgp, passkeys, sigstore
from signatures.detect import detect

_PAE = re.compile(rb"DSSEv1 (0|[1-9][0-9]{0,3}) ")


def unpack(data: bytes) -> tuple[str, bytes]:
    """Return the payload type and the payload of a pre-authentication encoding.

    Raises:
        UntrustedError: these are not exactly the bytes that `dsse.pae` writes of anything.
    """
    refused = UntrustedError(
        "the file holds no statement", hint="sign and name the file that --print-statement wrote, byte for byte"
    )
    found = _PAE.match(data)
    if found is None:
        raise refused
    start, length = found.end(), int(found[1])
    _, _, payload = data[start + length + 1 :].partition(b" ")
    try:
        payload_type = data[start : start + length].decode("ascii")
    except UnicodeDecodeError:
        raise refused from None
    if dsse.pae(payload_type, payload) != data:
        raise refused
    return payload_type, payload


def envelope_of(data: bytes, signature: bytes, trust: TrustPolicy, now: datetime) -> tuple[Envelope, Person]:
    """Return the envelope of a statement and its detached signature, and who signed; verified offline.

    Args:
        data: the statement's pre-authentication encoding: the signed bytes.
        signature: one OpenPGP signature, binary or armored, a Sigstore bundle, or a passkey's assertion.
        trust: the pinned trust policy.
        now: the time to judge by; aware.

    Raises:
        UntrustedError: no statement, no single signature, or nobody in the trust policy made it.
    """
    payload_type, payload = unpack(data)
    kind = detect(signature)
    if kind == "passkey":
        _, form = passkeys.canonical(signature)
        asserted = passkeys.verify(data, form, trust.people, trust)
        envelope = dsse.with_signature(payload, payload_type, asserted.key.fingerprint, form)
        return _checked(envelope, asserted.person.id, trust, now)
    if kind == "sigstore":
        found = sigstore.verify(data, signature, trust.people, trust, now)
        return _checked(dsse.with_signature(payload, payload_type, found.identity, signature), found.person, trust, now)
    packets = openpgp.split(signature)
    if len(packets) != 1:
        raise UntrustedError(f"the file holds {len(packets)} signatures: one person signs a statement once")
    (made,) = openpgp.verify(data, packets[0].data, trust.people, trust, now)
    person = None if made.person is None else trust.person(made.person)
    if person is None:
        raise UntrustedError(f"the signature on the statement is refused: {made.detail}")
    keyid = _certificate(person, packets[0], trust)
    return _checked(dsse.with_signature(payload, payload_type, keyid, packets[0].data), person.id, trust, now)


def _checked(envelope: Envelope, person_id: str, trust: TrustPolicy, now: datetime) -> tuple[Envelope, Person]:
    """Read the envelope once more, in the way of everybody who will."""
    person = trust.person(person_id)
    if person is None or dsse.verify_person(envelope, trust, now) != person.id:
        raise UntrustedError(f"the envelope is not {person_id}'s")
    return envelope, person


def _certificate(person: Person, packet: openpgp.SignaturePacket, trust: TrustPolicy) -> str:
    """Return the fingerprint of the person's certificate that holds the key which signed."""
    for key in person.openpgp:
        if openpgp.certificate(trust.files[key.certificate], key.fingerprint).issuer(packet.issuers) is not None:
            return key.fingerprint
    raise UntrustedError(f"no certificate of {person.id} holds the key that signed")
