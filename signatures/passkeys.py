"""Passkeys: WebAuthn assertions over a statement, verified offline by the `webauthn` library.

The challenge that an authenticator signs is the SHA-256 of the bytes to sign, for a decision its DSSE
pre-authentication encoding: so an assertion names exactly these bytes, and one that was made for another login or
statement names others. The relying party, its origins and the person's public key are pinned in the trust policy, and
the authenticator must have verified its user. Left to us by the library: a page inside another site's page is refused,
an assertion has one form (RFC 8785 bytes, no more fields than are checked), and weak keys are refused when the trust
policy is read. Counters mean nothing here: an assertion over the same bytes says the same thing twice.
Source: Web Authentication Level 3, sections 5.8.1 and 7.2.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import rfc8785

from constitution import strict_json
from constitution.base64url import decode_base64url
from constitution.errors import InvalidRequestError, Issue, UntrustedError
from constitution.trust.passkey import Passkey, RelyingParty
from constitution.trust.trust_policy import Person, TrustPolicy

MAX_ASSERTION = 16 * 1024  # bytes; one has about 700, of which an authenticator's extensions may be some
_LEAST_RSA_BITS = 2048
_RESPONSE = ("authenticatorData", "clientDataJSON", "signature")


@dataclass(frozen=True, slots=True)
class PasskeySignature:
    """Who signed, proved."""

    person: Person
    key: Passkey

    @property
    def detail(self) -> str:
        """Who, in words."""
        return f"{self.person.id} by the passkey {self.key.fingerprint}"


def canonical(assertion: bytes) -> tuple[str, bytes]:
    """Return the credential's id and the one form of an assertion: what is checked, and nothing else.

    Args:
        assertion: JSON of ``PublicKeyCredential.toJSON()`` as a browser writes it.

    Raises:
        UntrustedError: it is none.
    """
    try:
        value = strict_json.read(assertion, max_bytes=MAX_ASSERTION)
    except strict_json.StrictJsonError as error:
        raise UntrustedError(f"the passkey's assertion cannot be read: {error}") from error
    response = value.get("response") if isinstance(value, dict) else None
    if not isinstance(value, dict) or value.get("type") != "public-key" or not isinstance(response, dict):
        raise UntrustedError("the file holds no passkey's assertion")
    found = {"id": value.get("id"), **{name: response.get(name) for name in _RESPONSE}}
    absent = sorted(name for name, text in found.items() if not isinstance(text, str))
    if absent:
        raise UntrustedError(
            f"the passkey's assertion lacks {', '.join(absent)}",
            hint="an enrolment is no signature: sign the statement on the page, with the passkey that was enrolled"
            if "attestationObject" in response
            else "",
        )
    for name, text in found.items():
        try:
            decode_base64url(str(text))
        except ValueError as error:
            raise UntrustedError(f"the passkey's assertion: {name} {error}") from error
    identity = str(found["id"])
    kept = {name: found[name] for name in _RESPONSE}
    return identity, rfc8785.dumps({"id": identity, "rawId": identity, "response": kept, "type": "public-key"})


def verify(data: bytes, assertion: bytes, people: Sequence[Person], trust: TrustPolicy) -> PasskeySignature:
    """Return whose passkey signed the bytes.

    Args:
        data: the exact bytes; their SHA-256 is the challenge.
        assertion: in its one form.
        people: whose passkeys count.
        trust: pins the relying party.

    Raises:
        UntrustedError: nobody's, or for anything else.
    """
    from webauthn import verify_authentication_response  # noqa: PLC0415 - its import costs as much as a start of ours

    identity, form = canonical(assertion)
    if form != assertion:
        raise UntrustedError("the passkey's assertion is not in its one form (RFC 8785, no further fields)")
    if trust.relying_party is None:
        raise UntrustedError("the trust policy pins no relying party, so no passkey counts")
    found = [(person, key) for person in people for key in person.passkeys if key.credential == identity]
    if not found:
        raise UntrustedError(f"the passkey {identity[:32]!r} is nobody's in the trust policy")
    ((person, key),) = found
    try:
        verify_authentication_response(
            credential=strict_json.read(form),
            expected_challenge=hashlib.sha256(data).digest(),
            expected_rp_id=trust.relying_party.id,
            expected_origin=[*trust.relying_party.origins],
            credential_public_key=key.cose(),
            credential_current_sign_count=0,
            require_user_verification=True,
        )
        _require_top_level(form)
    except UntrustedError:
        raise
    except Exception as error:  # hostile bytes raise more kinds than the library's own
        reason = str(error) or type(error).__name__
        raise UntrustedError(f"the assertion of {person.id}'s passkey is refused: {reason[:200]}") from error
    return PasskeySignature(person, key)


def _require_top_level(form: bytes) -> None:
    """Demand that no page of another site was around the page that asked (``crossOrigin``, ``topOrigin``)."""
    from webauthn.helpers import base64url_to_bytes  # noqa: PLC0415 - late, as above

    client: Any = strict_json.read(base64url_to_bytes(strict_json.read(form)["response"]["clientDataJSON"]))
    if client.get("crossOrigin", False) is not False or "topOrigin" in client:
        raise UntrustedError("the passkey was asked inside another site's page")


def check_passkeys(trust: TrustPolicy) -> None:
    """Check the public key of every passkey of a trust policy.

    Raises:
        InvalidRequestError: with every one that is no key, or a weak one.
    """
    issues = [
        Issue(code="bad-key", path=f"/people/{person.id}/passkeys", message=f"{key.credential[:32]}: {problem}")
        for person in trust.people
        for key in person.passkeys
        if (problem := _problem(key))
    ]
    if issues:
        raise InvalidRequestError("a passkey of the trust policy cannot be used", issues=issues)


def _problem(key: Passkey) -> str:
    """Say what is wrong with a passkey's public key; nothing if it can be used."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415 - late, as above
    from webauthn.helpers import decode_credential_public_key, decoded_public_key_to_cryptography  # noqa: PLC0415

    try:
        public = decoded_public_key_to_cryptography(decode_credential_public_key(key.cose()))
    except Exception as error:  # noqa: BLE001 - whatever bytes raise in a decoder
        return f"public_key is no COSE key: {str(error)[:200] or type(error).__name__}"
    if isinstance(public, rsa.RSAPublicKey):
        return f"an RSA key of {public.key_size} bits is too weak" if public.key_size < _LEAST_RSA_BITS else ""
    if isinstance(public, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return ""
    return "public_key is of a kind that is not taken"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A new passkey, and where it was made: what a person compares before it enters a trust policy."""

    passkey: Passkey
    relying_party: RelyingParty


def read_enrolment(registration: bytes, relying_party: str) -> Enrolment:
    """Return the passkey that an authenticator has just made.

    No attestation is asked for, as anybody's word about a device's maker would have to be trusted: people compare the
    fingerprint instead. Its challenge is the page's own and proves nothing.

    Args:
        registration: JSON of ``PublicKeyCredential.toJSON()`` after ``navigator.credentials.create``.
        relying_party: the id that it must be for: a domain name.

    Raises:
        UntrustedError: it is no registration, of another relying party, or its user was not verified.
    """
    from webauthn import verify_registration_response  # noqa: PLC0415 - late, as above
    from webauthn.helpers import base64url_to_bytes, bytes_to_base64url, parse_client_data_json  # noqa: PLC0415 - late

    try:
        value: Any = strict_json.read(registration, max_bytes=MAX_ASSERTION)
        client = parse_client_data_json(base64url_to_bytes(value["response"]["clientDataJSON"]))
        verified = verify_registration_response(
            credential=value,
            expected_challenge=client.challenge,
            expected_rp_id=relying_party,
            expected_origin=client.origin,
            require_user_verification=True,
        )
        found = Passkey(
            credential=bytes_to_base64url(verified.credential_id),
            public_key=bytes_to_base64url(verified.credential_public_key),
        )
        party = RelyingParty(id=relying_party, origins=(client.origin,))
    except Exception as error:  # hostile bytes raise more kinds than the library's own
        reason = str(error) or type(error).__name__
        raise UntrustedError(f"the file is no enrolment of a passkey: {reason[:200]}") from error
    if problem := _problem(found):
        raise UntrustedError(f"the passkey cannot be used: {problem}")
    return Enrolment(found, party)
