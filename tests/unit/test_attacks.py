"""Small attacks on one function each, that no other file tries. All of them: docs/threat-model.md, attack by attack."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from activities.documents import _read, require_checksum
from constitution.checksum import checksum_of
from constitution.errors import InvalidDocumentError, InvalidRequestError, UntrustedError
from constitution.policy.document import parse
from constitution.trust.trust_policy import TrustPolicy
from signatures import openpgp, statements
from signatures.current import read_current
from signatures.verify import verify_document
from tests.recorded_bundles import Recorded
from tests.unit.keyring import NOW, document, keyring
from tests.unit.test_current import current
from tests.unit.test_statements import approval

RECORDED = Recorded()
DOCUMENT = json.dumps(document(), indent=2).encode()


def by_openpgp(signed: bytes) -> tuple[bytes, TrustPolicy]:
    """Mara's signature."""
    return openpgp.sign_detached(signed, keyring().tsk["mara"]), keyring().trust


def judged(data: bytes, signature: bytes, trust: TrustPolicy) -> tuple[str, ...]:
    return verify_document(data, [signature], trust, RECORDED.now() if trust.sigstore else NOW).signers


WRITTEN_ANEW: dict[str, Callable[[bytes], bytes]] = {
    "without white space": lambda data: json.dumps(json.loads(data), separators=(",", ":")).encode(),
    "sorted": lambda data: json.dumps(json.loads(data), indent=2, sort_keys=True).encode(),
    "escaped": lambda data: data.replace(b"title", b"\\u0074itle", 1),
    "with a line more": lambda data: data + b"\n",
}


@pytest.mark.parametrize("how", WRITTEN_ANEW)
def test_a_document_of_the_same_meaning_in_other_bytes_has_no_signature(how: str) -> None:
    copy = WRITTEN_ANEW[how](DOCUMENT)
    assert json.loads(copy) == json.loads(DOCUMENT)
    signature, trust = by_openpgp(DOCUMENT)
    assert judged(DOCUMENT, signature, trust) == ("mara",)
    assert judged(copy, signature, trust) == ()
    recorded = WRITTEN_ANEW[how](RECORDED.document)
    assert judged(recorded, RECORDED.bundle("mara"), RECORDED.trust()) == ()


@pytest.mark.parametrize("place", [0, 1, len(DOCUMENT) // 2, len(DOCUMENT) - 1])
def test_one_changed_byte_leaves_no_signature(place: int) -> None:
    signature, trust = by_openpgp(DOCUMENT)
    changed = DOCUMENT[:place] + bytes([DOCUMENT[place] ^ 1]) + DOCUMENT[place + 1 :]
    assert judged(changed, signature, trust) == ()
    bundle = RECORDED.document[:-2] + bytes([RECORDED.document[-2] ^ 1]) + RECORDED.document[-1:]
    assert judged(bundle, RECORDED.bundle("mara"), RECORDED.trust()) == ()


def test_the_signature_of_another_document_is_none_of_this_one() -> None:
    """Also of the same version: a signature names bytes, no number."""
    other = json.dumps(document(title="Another", version="1.0.0"), indent=2).encode()
    signature, trust = by_openpgp(other)
    assert judged(other, signature, trust) == ("mara",)
    assert judged(DOCUMENT, signature, trust) == ()
    assert judged(RECORDED.document + b" ", RECORDED.bundle("mara"), RECORDED.trust()) == ()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (DOCUMENT + DOCUMENT, "not-json"),
        (DOCUMENT + b"\n" + DOCUMENT, "not-json"),
        (DOCUMENT + b"\x00", "not-json"),
        (DOCUMENT.replace(b"A constitution", b"A \x00constitution"), "not-json"),
        (DOCUMENT.replace(b"A constitution", b"A \\u0000constitution"), "schema-pattern"),
        (DOCUMENT.replace(b"For tests.", b"x" * (1024 * 1024)), "too-large"),
        (DOCUMENT.replace(b'"For tests."', b"[" * 65 + b"]" * 65), "too-deep"),
    ],
    ids=["two in one file", "two lines", "NUL behind", "NUL inside", "NUL in words", "oversize", "deep"],
)
def test_a_document_that_readers_could_read_in_two_ways_is_none(data: bytes, code: str) -> None:
    with pytest.raises(InvalidDocumentError) as refused:
        parse(data)
    assert code in {issue.code for issue in refused.value.issues}


@pytest.mark.parametrize("between", [b"", b"\n", b"\x00"])
def test_two_signatures_of_sigstore_or_of_armor_in_one_file_are_none(between: bytes) -> None:
    bundle = RECORDED.bundle("mara")
    assert judged(RECORDED.document, bundle + between + bundle, RECORDED.trust()) == ()
    data = Path(__file__).resolve().parents[1] / "data" / "openpgp"
    armor = (data / "good.asc").read_bytes()
    with pytest.raises(openpgp.OpenPgpError):
        openpgp.split(armor + between + armor)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "a/../../secret", ".hidden", "", "x\x00y", "link", "pipe"]
)
def test_no_name_leads_out_of_the_inbox(tmp_path: Path, name: str) -> None:
    inbox = tmp_path / "inbox"
    (inbox / "a").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"a secret")
    (inbox / ".hidden").write_bytes(b"x")
    (inbox / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(inbox / "pipe")
    with pytest.raises(InvalidRequestError):
        _read(inbox, name)


def test_bytes_that_were_swapped_after_the_check_are_refused() -> None:
    require_checksum(DOCUMENT, checksum_of(DOCUMENT))
    with pytest.raises(UntrustedError, match="the bytes have the checksum"):
        require_checksum(DOCUMENT + b" ", checksum_of(DOCUMENT))


@pytest.mark.parametrize("generation", [10**9, 2**53, 2**63 - 1])
def test_a_generation_far_ahead_is_worth_its_signature(generation: int) -> None:
    """Whoever may write Redis, and would have every later release taken for an old one."""
    forged: dict[str, Any] = {**json.loads(current().model_dump_json()), "generation": generation}
    with pytest.raises(UntrustedError):
        read_current(json.dumps(forged).encode(), trust=keyring().trust, environment="development", ring="default")


def test_nobody_signs_a_decision_by_the_name_of_another() -> None:
    """Bruno's genuine signature, under Alva's name, is nobody's."""
    ring = keyring()
    made = statements.sign_approval(approval(), ring.tsk["bruno"])
    alva = ring.trust.people[2].openpgp[0].fingerprint
    named = type(made.signatures[0])(keyid=alva, sig=made.signatures[0].sig)
    with pytest.raises(UntrustedError):
        statements.verify_approval(made.model_copy(update={"signatures": (named,)}), ring.trust, NOW)
