"""Bindings and revocations in a certificate count only if its primary key made them, and not before their time."""

import base64
import itertools
import json
from datetime import UTC, datetime, timedelta

import pysequoia
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from constitution.errors import InvalidRequestError
from constitution.trust.trust_policy import TrustPolicy
from signatures import openpgp
from signatures.verify import SignatureReport, verify_document
from tests.unit.keyring import keyring, toml_of
from tests.unit.openpgp_packets import CERTIFY, DIRECT, ENCRYPT, SIGN, Key, packet, subkey
from tests.unit.test_openpgp import DOCUMENT, trust_in

NOW = datetime.now(UTC).replace(microsecond=0)
BORN, LATER, SIGNED = NOW - timedelta(days=300), NOW - timedelta(days=100), NOW - timedelta(days=200)
DAY = timedelta(days=1)


@pytest.fixture
def owner() -> Key:
    return Key(BORN)


@pytest.fixture
def signer() -> Key:
    return Key(BORN)


def judged(owner: Key, certificate: bytes, signature: bytes, now: datetime = NOW) -> SignatureReport:
    return verify_document(DOCUMENT, [signature], trust_in(certificate, "hand", owner.fingerprint), now)


def _broken(packet: bytes) -> bytes:
    """A signature packet with one bit of its last byte turned."""
    return packet[:-1] + bytes([packet[-1] ^ 1])


def test_the_packets_made_here_are_good_openpgp(owner: Key, signer: Key) -> None:
    """So what is refused below is refused for its reason: Sequoia itself takes certificate and signature."""
    data = owner.certificate(subkey(signer), owner.bind(signer, BORN))
    signature = signer.document(DOCUMENT, SIGNED)
    cert, sig = pysequoia.Cert.from_bytes(data), pysequoia.Sig.from_bytes(signature)
    assert len(pysequoia.verify(bytes=DOCUMENT, store=lambda _: [cert], signature=sig).valid_sigs) == 1
    assert judged(owner, data, signature).signers == ("hand",)
    assert judged(owner, data, owner.document(DOCUMENT, SIGNED)).signers == ("hand",)


@pytest.mark.parametrize("what", ["forged", "broken", "future", "forged and future"])
def test_a_binding_that_does_not_count_hides_no_expiry(owner: Key, signer: Key, what: str) -> None:
    ends = owner.bind(signer, BORN, lives=timedelta(days=250))
    signature = signer.document(DOCUMENT, SIGNED)
    appended = {
        "forged": owner.bind(signer, LATER, by=Key(BORN)),
        "broken": _broken(owner.bind(signer, LATER)),
        "future": owner.bind(signer, NOW + DAY),
        "forged and future": owner.bind(signer, NOW + DAY, by=Key(BORN)),
    }[what]
    assert "expired at" in judged(owner, owner.certificate(subkey(signer), ends), signature).findings[0].detail
    report = judged(owner, owner.certificate(subkey(signer), ends, appended), signature)
    assert report.signers == ()
    assert "expired at" in report.findings[0].detail


@pytest.mark.parametrize("what", ["forged", "broken", "future", "of another subkey"])
def test_a_revocation_that_does_not_count_blocks_nobody(owner: Key, signer: Key, what: str) -> None:
    other = Key(BORN)
    appended = {
        "forged": owner.revoke(signer, LATER, by=Key(BORN)),
        "broken": _broken(owner.revoke(signer, LATER)),
        "future": owner.revoke(signer, NOW + DAY, soft=True),
        "of another subkey": owner.revoke(other, LATER),
    }[what]
    data = owner.certificate(
        subkey(signer), owner.bind(signer, BORN), appended, subkey(other), owner.bind(other, BORN, flags=ENCRYPT)
    )
    assert judged(owner, data, signer.document(DOCUMENT, SIGNED)).signers == ("hand",)


@pytest.mark.parametrize("place", ["after its subkey", "after another subkey"])
def test_a_revocation_by_the_owner_counts_wherever_it_stands(owner: Key, signer: Key, place: str) -> None:
    other = Key(BORN)
    revoked = owner.revoke(signer, LATER)
    rest = [subkey(other), owner.bind(other, BORN, flags=ENCRYPT)]
    after = [revoked, *rest] if place == "after its subkey" else [*rest, revoked]
    report = judged(
        owner, owner.certificate(subkey(signer), owner.bind(signer, BORN), *after), signer.document(DOCUMENT, SIGNED)
    )
    assert report.signers == ()
    assert "the signing subkey is revoked" in report.findings[0].detail


def test_a_revocation_counts_also_for_what_is_judged_by_an_earlier_time(owner: Key, signer: Key) -> None:
    data = owner.certificate(subkey(signer), owner.bind(signer, BORN), owner.revoke(signer, LATER))
    assert judged(owner, data, signer.document(DOCUMENT, SIGNED), SIGNED + DAY).signers == ()


def test_a_subkey_whose_right_to_sign_was_taken_back_cannot_sign_with_an_earlier_date(owner: Key, signer: Key) -> None:
    before = owner.certificate(subkey(signer), owner.bind(signer, BORN))
    after = owner.certificate(subkey(signer), owner.bind(signer, BORN), owner.bind(signer, LATER, flags=ENCRYPT))
    signature = signer.document(DOCUMENT, SIGNED)
    assert judged(owner, before, signature).signers == ("hand",)
    report = judged(owner, after, signature)
    assert report.signers == ()
    assert f"may not sign: so says its certificate since {LATER.isoformat()}" in report.findings[0].detail
    assert judged(owner, after, signature, SIGNED + DAY).signers == ("hand",)  # what was live then was good then


def test_a_primary_key_whose_right_to_sign_was_taken_back_cannot_either(owner: Key) -> None:
    name = b"Hand <h@example.org>"
    covered = owner.framed + b"\xb4" + len(name).to_bytes(4, "big") + name
    signature = owner.document(DOCUMENT, SIGNED)
    by_user = owner.certificate(owner.certify(covered, LATER, CERTIFY))
    report = judged(owner, by_user, signature)
    assert report.signers == ()
    assert "the primary key may not sign" in report.findings[0].detail
    direct = packet(2, owner.sign(DIRECT, owner.framed, LATER, [bytes([2, 27, CERTIFY])]))
    by_key = packet(6, owner.body) + direct + owner.user(name, BORN)
    assert judged(owner, by_key, signature).signers == ()
    forged = packet(2, Key(BORN).sign(DIRECT, owner.framed, LATER, [bytes([2, 27, CERTIFY])]))
    assert judged(owner, packet(6, owner.body) + forged + owner.user(name, BORN), signature).signers == ("hand",)


def test_a_right_given_back_counts_again(owner: Key, signer: Key) -> None:
    bindings = [owner.bind(signer, BORN), owner.bind(signer, LATER, flags=ENCRYPT), owner.bind(signer, LATER + DAY)]
    data = owner.certificate(subkey(signer), *bindings)
    assert judged(owner, data, signer.document(DOCUMENT, NOW)).signers == ("hand",)


def test_a_binding_that_has_itself_expired_is_none(owner: Key, signer: Key) -> None:
    binding = owner.bind(signer, BORN, lasts=timedelta(days=250))
    report = judged(owner, owner.certificate(subkey(signer), binding), signer.document(DOCUMENT, SIGNED))
    assert report.signers == ()
    assert "binding of the signing subkey expired" in report.findings[0].detail


def two_people(first: tuple[Key, bytes], second: tuple[Key, bytes]) -> TrustPolicy:
    ring = keyring()
    board = [(p.id, ["board"], [(p.openpgp[0].fingerprint, p.openpgp[0].certificate)]) for p in ring.trust.people[2:]]
    people = [
        (name, ["maintainer"], [(key.fingerprint, f"{name}.pgp")])
        for name, (key, _) in (("one", first), ("two", second))
    ]
    files = {**ring.files, "one.pgp": first[1], "two.pgp": second[1]}
    policy = TrustPolicy.parse(toml_of([*people, *board], ring.service, ring.worker), files)
    openpgp.check_certificates(policy)
    return policy


def test_one_key_under_two_dates_is_not_two_people() -> None:
    one = Key(BORN)
    twin = Key(LATER, one.secret)
    assert one.fingerprint != twin.fingerprint
    with pytest.raises(InvalidRequestError, match=f"the key {twin.fingerprint} is the key of person one too"):
        two_people((one, one.certificate()), (twin, twin.certificate()))


def test_a_subkey_that_is_another_persons_key_under_another_date_is_refused() -> None:
    one, other = Key(BORN), Key(BORN)
    twin = Key(LATER, one.secret)
    certificate = other.certificate(subkey(twin), other.bind(twin, LATER))
    with pytest.raises(InvalidRequestError, match="is the key of person one too"):
        two_people((one, one.certificate()), (other, certificate))
    two_people((one, one.certificate()), (other, other.certificate()))


def test_the_key_of_a_service_is_nobodys() -> None:
    ring = keyring()
    secret = base64.urlsafe_b64decode(json.loads(ring.service.to_json())["d"] + "=")
    one = Key(BORN, Ed25519PrivateKey.from_private_bytes(secret))
    with pytest.raises(InvalidRequestError, match="is the key of service constitution-service too"):
        two_people((one, one.certificate()), (Key(BORN), Key(BORN).certificate()))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_changed_byte_of_a_binding_gives_a_right(data: st.DataObject) -> None:
    """Whatever one byte of the binding that withdraws becomes, the key signs no more than without that binding."""
    owner, signer = Key(BORN), Key(BORN)
    first = owner.bind(signer, BORN, flags=ENCRYPT)
    second = bytearray(owner.bind(signer, LATER, flags=ENCRYPT))
    # A signature is of another length each time, and what is drawn must not depend on that.
    position = 6 + data.draw(st.integers(0, 9999)) % (len(second) - 6)
    second[position] ^= data.draw(st.integers(1, 255))
    certificate = owner.certificate(subkey(signer), first, bytes(second), flags=CERTIFY | SIGN)
    assert judged(owner, certificate, signer.document(DOCUMENT, SIGNED)).signers == ()


@pytest.mark.parametrize(
    ("suite", "profile"),
    [
        *itertools.product(("Cv25519", "Cv448", "P256", "P384", "P521"), ("RFC4880", "RFC9580")),
        ("RSA3k", "RFC4880"),
        pytest.param("RSA3k", "RFC9580", marks=pytest.mark.slow),  # making two such keys takes seconds
    ],
)
def test_keys_of_every_algorithm_that_is_checked_here_sign(suite: str, profile: str) -> None:
    """Their signing subkey is bound by a signature that Sequoia made, in version 4 and in version 6."""
    tsk, certificate, fingerprint = made(suite, profile)
    keys = openpgp.Certificate(certificate, fingerprint).keys
    assert [len(key.statements) > 0 for key in keys] == [True] * len(keys)
    signature = openpgp.sign_detached(DOCUMENT, tsk)
    trust = trust_in(certificate, "hand", fingerprint)
    assert verify_document(DOCUMENT, [signature], trust, NOW + DAY).signers == ("hand",)


def test_an_algorithm_that_is_not_checked_here_is_refused_by_name() -> None:
    with pytest.raises(openpgp.OpenPgpError, match="neither RSA, ECDSA on a NIST curve, Ed25519 nor Ed448"):
        made("MLDSA65_Ed25519", "RFC9580")


def made(suite: str, profile: str) -> tuple[bytes, bytes, str]:
    tsk = pysequoia.Tsk.generate(
        user_id="Any <any@example.org>",
        cipher_suite=getattr(pysequoia.CipherSuite, suite),
        profile=getattr(pysequoia.Profile, profile),
    )
    cert = tsk.extract_certificate()
    openpgp.Certificate(bytes(cert), cert.fingerprint)  # refuses what it cannot check
    return bytes(tsk), bytes(cert), cert.fingerprint
