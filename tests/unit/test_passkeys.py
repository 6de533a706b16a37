"""Decisions signed by a passkey: what is taken, by whom, and what is refused."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from constitution.errors import InvalidRequestError, UntrustedError
from constitution.release import Envelope
from constitution.trust.passkey import RelyingParty
from constitution.trust.trust_policy import TrustPolicy
from deploy.embedded.authenticator import ORIGIN, PRESENT, RELYING_PARTY, Authenticator
from signatures import detached, dsse, passkeys
from signatures.detect import detect
from signatures.statements import IN_TOTO, approval_bytes, verify_approval
from signatures.verify import verify_document
from tests.unit.keyring import keyring
from tests.unit.test_statements import approval

ALVA, STRANGER = Authenticator(), Authenticator()
STATEMENT = dsse.pae(IN_TOTO, approval_bytes(approval()))
OTHER_STATEMENT = dsse.pae(IN_TOTO, approval_bytes(approval(change_request="CR-2")))


PARTY = f'id = "{RELYING_PARTY}", origins = ["{ORIGIN}"]'


def policy(entry: str = ALVA.entry, party: str = PARTY) -> TrustPolicy:
    """The keyring's policy, with a passkey for alva beside her OpenPGP key."""
    pinned = f"\nrelying_party = {{ {party} }}" if party else ""
    toml = keyring().toml.replace("\nversion = 1", f"\nversion = 1{pinned}")
    return TrustPolicy.parse(toml.replace('id = "alva"', f'id = "alva"\n{entry}'), keyring().files)


TRUST = policy()


def now() -> datetime:
    return datetime.now(UTC)


def sealed(assertion: bytes, keyid: str = ALVA.passkey.fingerprint, statement: bytes = STATEMENT) -> Envelope:
    """An envelope as a stranger may send it, with the assertion in its one form."""
    payload_type, payload = detached.unpack(statement)
    signature = Envelope.Signature(keyid=keyid, sig=base64.b64encode(passkeys.canonical(assertion)[1]).decode())
    return Envelope(payloadType=payload_type, payload=base64.b64encode(payload).decode(), signatures=(signature,))


def test_a_decision_by_passkey_is_that_persons_decision() -> None:
    envelope, person = detached.envelope_of(STATEMENT, ALVA.sign(STATEMENT), TRUST, now())
    assert person.id == "alva"
    assert envelope.signatures[0].keyid == ALVA.passkey.fingerprint
    who, said = verify_approval(envelope, TRUST, approval().issued_at)
    assert (who, said) == ("alva", approval())


def test_one_assertion_has_one_envelope() -> None:
    once = ALVA.sign(STATEMENT)
    spelled = json.dumps(
        {**json.loads(once), "clientExtensionResults": {}, "authenticatorAttachment": "platform"}, indent=2
    )
    envelopes = [detached.envelope_of(STATEMENT, form, TRUST, now())[0] for form in (once, spelled.encode())]
    assert dsse.envelope_digest(envelopes[0]) == dsse.envelope_digest(envelopes[1])


ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "of another statement": (lambda: ALVA.sign(OTHER_STATEMENT), "challenge"),
    "another challenge": (lambda: ALVA.sign(STATEMENT, challenge=STATEMENT[:32]), "challenge"),
    "another origin": (lambda: ALVA.sign(STATEMENT, origin="https://evil.example.org"), "origin"),
    "another port": (lambda: ALVA.sign(STATEMENT, origin=f"{ORIGIN}:8443"), "origin"),
    "another relying party": (lambda: ALVA.sign(STATEMENT, relying_party="example.org"), "RP ID"),
    "a user who was not verified": (lambda: ALVA.sign(STATEMENT, flags=PRESENT), "verif"),
    "a user who was not there": (lambda: ALVA.sign(STATEMENT, flags=4), "present"),
    "an enrolment's client data": (lambda: ALVA.sign(STATEMENT, act="webauthn.create"), "type"),
    "a payment": (lambda: ALVA.sign(STATEMENT, act="payment.get"), "type"),
    "inside another site's page": (lambda: ALVA.sign(STATEMENT, crossOrigin=True), "another site's page"),
    "below another page": (lambda: ALVA.sign(STATEMENT, topOrigin="https://evil.example.org"), "another site's page"),
    "cross-origin in words": (lambda: ALVA.sign(STATEMENT, crossOrigin="no"), "another site's page"),
    "a stranger": (lambda: STRANGER.sign(STATEMENT), "nobody's"),
    "a stranger under her credential": (
        lambda: Authenticator(credential=ALVA.credential).sign(STATEMENT),
        "Could not verify",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_assertion_that_is_not_exactly_this_one_is_refused(attack: str) -> None:
    make, words = ATTACKS[attack]
    assertion = make()
    with pytest.raises(UntrustedError, match=words):
        dsse.verify_person(sealed(assertion), TRUST, now())
    with pytest.raises(UntrustedError, match=words):
        detached.envelope_of(STATEMENT, assertion, TRUST, now())


def test_a_passkey_counts_under_its_owners_name_only() -> None:
    bruno = next(key.fingerprint for key in keyring().trust.people[3].openpgp)
    for keyid in (bruno, STRANGER.passkey.fingerprint, ALVA.passkey.credential, ""):
        with pytest.raises(UntrustedError, match="not in the trust policy"):
            dsse.verify_person(sealed(ALVA.sign(STATEMENT), keyid), TRUST, now())


def test_a_passkey_that_left_the_policy_counts_no_more() -> None:
    with pytest.raises(UntrustedError, match="not in the trust policy"):
        dsse.verify_person(sealed(ALVA.sign(STATEMENT)), keyring().trust, now())


def test_a_passkey_signs_no_document() -> None:
    document = b'{"a": 1}'
    report = verify_document(document, [ALVA.sign(document)], TRUST, now())
    assert report.signers == ()
    assert [(f.kind, f.counted, f.detail) for f in report.findings] == [
        ("passkey", False, "a passkey signs statements, no documents")
    ]


def test_an_enrolment_is_no_signature() -> None:
    with pytest.raises(UntrustedError, match="lacks authenticatorData, signature") as caught:
        detached.envelope_of(STATEMENT, ALVA.enrol(), TRUST, now())
    assert "sign the statement on the page" in caught.value.hint


GENUINE = passkeys.canonical(ALVA.sign(STATEMENT))[1]


@given(at=st.integers(0, len(GENUINE) - 1), bit=st.integers(0, 7))
def test_no_flipped_bit_of_an_assertion_is_accepted(at: int, bit: int) -> None:
    changed = bytearray(GENUINE)
    changed[at] ^= 1 << bit
    with pytest.raises(UntrustedError):
        passkeys.verify(STATEMENT, bytes(changed), TRUST.people, TRUST)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)


@given(
    place=st.sampled_from(["id", "rawId", "type", "response", "authenticatorData", "clientDataJSON", "signature"]),
    value=_JSON,
)
def test_no_other_value_in_an_assertion_is_accepted_or_a_crash(place: str, value: Any) -> None:
    content = json.loads(GENUINE)
    (content if place in content else content["response"])[place] = value
    changed = rfc8785.dumps(content)
    if changed != GENUINE:
        with pytest.raises(UntrustedError):
            passkeys.verify(STATEMENT, changed, TRUST.people, TRUST)


@pytest.mark.parametrize(
    "more", [b" ", b"\n", b'{"type": "public-key"}', b"x"], ids=["space", "newline", "two", "rubbish"]
)
def test_another_form_of_a_genuine_assertion_is_refused(more: bytes) -> None:
    for changed in (GENUINE + more, GENUINE.replace(b'"id"', b'"id" ', 1)):
        with pytest.raises(UntrustedError):
            passkeys.verify(STATEMENT, changed, TRUST.people, TRUST)


def test_kinds_are_told_apart_by_content() -> None:
    assert detect(ALVA.sign(STATEMENT)) == "passkey"
    for other in (b'{"mediaType": "x"}', b'{"type": "x"}', b'{"type": "public-key"', b'{"type": ["public-key"]}', b"{"):
        assert detect(other) == "sigstore"


@pytest.mark.parametrize(
    ("entry", "party", "words"),
    [
        (ALVA.entry, "", "relying party must be pinned"),
        (ALVA.entry.replace('credential = "', 'credential = "='), PARTY, "base64url"),
        (ALVA.entry, 'id = "example.org", origins = []', "at least 1"),
        (ALVA.entry, f'id = "{RELYING_PARTY}", origins = ["https://evil.org"]', "no page of"),
        (ALVA.entry, f'id = "{RELYING_PARTY}", origins = ["https://evil{RELYING_PARTY}"]', "no page of"),
        (ALVA.entry, f'id = "{RELYING_PARTY}", origins = ["http://{RELYING_PARTY}"]', "TLS"),
        (ALVA.entry, f'id = "{RELYING_PARTY}", origins = ["{ORIGIN}/"]', "pattern"),
        (ALVA.entry, 'id = "Example.org", origins = ["https://example.org"]', "pattern"),
    ],
)
def test_a_policy_with_a_bad_passkey_or_relying_party_is_refused(entry: str, party: str, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        policy(entry, party)
    assert words in caught.value.diagnostics()


def test_one_passkey_has_one_owner() -> None:
    toml = keyring().toml
    for person in ("alva", "bruno"):
        toml = toml.replace(f'id = "{person}"', f'id = "{person}"\n{ALVA.entry}')
    with pytest.raises(InvalidRequestError) as caught:
        TrustPolicy.parse(toml, keyring().files)
    assert "is the key of person alva too" in caught.value.diagnostics()


def test_weak_and_unreadable_keys_are_named_when_the_policy_is_read() -> None:
    rsa_1024 = _cose_rsa(1024)
    for key, words in ((rsa_1024, "1024 bits is too weak"), ("AAAA", "is no COSE key"), ("oQ", "is no COSE key")):
        entry = f'passkeys = [{{ credential = "AAAA", public_key = "{key}" }}]'
        with pytest.raises(InvalidRequestError) as caught:
            passkeys.check_passkeys(policy(entry))
        assert words in caught.value.diagnostics()
    passkeys.check_passkeys(TRUST)


def _cose_rsa(bits: int) -> str:
    import cbor2
    from cryptography.hazmat.primitives.asymmetric import rsa

    numbers = rsa.generate_private_key(65537, bits).public_key().public_numbers()
    key = cbor2.dumps({1: 3, 3: -257, -1: numbers.n.to_bytes(bits // 8, "big"), -2: b"\x01\x00\x01"})
    return base64.urlsafe_b64encode(key).rstrip(b"=").decode()


def test_an_enrolment_gives_the_entry_and_the_fingerprint() -> None:
    found = passkeys.read_enrolment(ALVA.enrol(), RELYING_PARTY)
    assert found.passkey == ALVA.passkey
    assert found.relying_party == RelyingParty(id=RELYING_PARTY, origins=(ORIGIN,))


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (ALVA.enrol(relying_party="evil.org"), "RP ID"),
        (ALVA.enrol(origin="https://evil.org"), "no page of"),
        (ALVA.enrol(flags=PRESENT), "verif"),
        (ALVA.sign(STATEMENT), "no enrolment"),
        (b"{}", "no enrolment"),
        (b"[1]", "no enrolment"),
        (b"x" * 20_000, "no enrolment"),
    ],
)
def test_a_file_that_is_no_enrolment_is_refused(file: bytes, words: str) -> None:
    with pytest.raises(UntrustedError, match=words):
        passkeys.read_enrolment(file, RELYING_PARTY)
