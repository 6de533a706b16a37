"""Signatures made elsewhere, over the bytes of a statement: what is taken, by whom, and what is refused."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitution.errors import UntrustedError
from constitution.trust.approval import BoardDecision
from signatures import detached, dsse, openpgp
from signatures.openpgp import generate_key
from signatures.statements import IN_TOTO, approval_bytes, verify_approval
from tests.gpg import SIGNER, Hand, hand
from tests.unit.keyring import DATA, keyring
from tests.unit.test_statements import approval

STATEMENT = dsse.pae(IN_TOTO, approval_bytes(approval()))


@pytest.fixture(scope="module", params=[SIGNER])
def alva() -> Iterator[Hand]:
    with hand(keyring().tsk["alva"]) as person:
        yield person


def now() -> datetime:
    return datetime.now(UTC)


@pytest.mark.parametrize("armor", [False, True])
def test_a_signature_by_gpg_makes_the_envelope_that_everybody_verifies(alva: Hand, tmp_path: Path, armor: bool) -> None:
    file = tmp_path / "statement"
    file.write_bytes(STATEMENT)
    signature = alva.sign(file, armor=armor).read_bytes()
    envelope, person = detached.envelope_of(STATEMENT, signature, keyring().trust, now())
    assert person.id == "alva"
    assert envelope.signatures[0].keyid == alva.fingerprint
    assert verify_approval(envelope, keyring().trust, now()) == ("alva", approval())
    packet = dsse.decode_base64(envelope.signatures[0].sig, "signature")
    assert packet[0] & 0x80, "an envelope holds the packet without its armor"


def test_a_person_with_two_keys_is_named_by_the_one_that_signed() -> None:
    signature = openpgp.sign_detached(STATEMENT, keyring().tsk["mara-second"])
    envelope, person = detached.envelope_of(STATEMENT, signature, keyring().trust, now())
    assert person.id == "mara"
    assert envelope.signatures[0].keyid == openpgp.fingerprint_of_key(keyring().tsk["mara-second"])


def test_what_is_not_one_signature_of_somebody_known_over_these_bytes_is_refused() -> None:
    ring = keyring()
    good = openpgp.sign_detached(STATEMENT, ring.tsk["alva"])
    stranger, _, _ = generate_key("Stranger <stranger@example.org>")
    other = dsse.pae(IN_TOTO, approval_bytes(approval(decision=BoardDecision.DENY)))
    refused = {
        "nobody who may sign": (STATEMENT, openpgp.sign_detached(STATEMENT, stranger)),
        "does not match": (other, good),
        "2 signatures": (STATEMENT, good + openpgp.sign_detached(STATEMENT, ring.tsk["bruno"])),
        "Sigstore": (STATEMENT, (DATA / "sigstore" / "new_bundle.txt.sigstore.json").read_bytes()),
        "not a document signature": (STATEMENT, (DATA / "openpgp" / "text.sig").read_bytes()),
        "neither": (STATEMENT, (DATA / "openpgp" / "clear.txt").read_bytes()),
        "holds no statement": (b"{}", openpgp.sign_detached(b"{}", ring.tsk["alva"])),
    }
    for reason, (data, signature) in refused.items():
        with pytest.raises(UntrustedError, match=reason):
            detached.envelope_of(data, signature, ring.trust, now())
    with pytest.raises(UntrustedError, match="dated in the future"):
        detached.envelope_of(STATEMENT, good, ring.trust, now() - timedelta(hours=1))


@given(st.binary(max_size=200), st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=120))
def test_what_is_packed_is_unpacked(payload: bytes, payload_type: str) -> None:
    assert detached.unpack(dsse.pae(payload_type, payload)) == (payload_type, payload)


@given(st.integers(0, len(STATEMENT) - 1), st.integers(1, 255), st.booleans())
def test_no_other_bytes_are_read_as_the_same_statement(place: int, change: int, dropped: bool) -> None:
    changed = bytearray(STATEMENT)
    changed[place : place + 1] = b"" if dropped else bytes([changed[place] ^ change])
    try:
        found = detached.unpack(bytes(changed))
    except UntrustedError:
        return
    assert found != detached.unpack(STATEMENT)
