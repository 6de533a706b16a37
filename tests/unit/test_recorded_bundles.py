"""Attacks on signatures that a private Sigstore made, and this repository holds: Fulcio, Rekor v2, timestamps."""

import base64
import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from constitution.errors import UntrustedError
from constitution.trust.trust_policy import Person, SigstoreIdentity, TrustPolicy
from signatures import dsse
from signatures.statements import verify_approval, verify_change_request
from signatures.verify import verify_document
from tests.keyless import KeylessAuthority
from tests.recorded_bundles import MAIN, Recorded

RECORDED = Recorded()


def judged(bundle: bytes, policy: TrustPolicy | None = None, document: bytes = RECORDED.document) -> tuple[str, str]:
    """Whose signature counts, and what is said of it."""
    report = verify_document(document, [bundle], policy or RECORDED.trust(), RECORDED.now())
    return ",".join(report.signers), report.findings[0].detail


def test_people_and_a_ci_job_sign_documents() -> None:
    assert judged(RECORDED.bundle("mara"))[0] == "mara"
    assert judged(RECORDED.bundle("ci"))[0] == "ci"


def test_an_author_signs_a_change_request_and_the_board_decides() -> None:
    policy = RECORDED.trust()
    request = verify_change_request(RECORDED.envelope("change_request"), policy, RECORDED.now())
    assert (request.author, request.id) == ("mara", "CR-1")
    for person in ("alva", "bruno"):
        who, decided = verify_approval(RECORDED.envelope(f"approval_{person}"), policy, RECORDED.now())
        assert (who, decided.change_request, decided.checksum) == (person, "CR-1", request.checksum)


def test_somebody_whom_the_policy_does_not_list_counts_for_nobody() -> None:
    signers, detail = judged(RECORDED.bundle("olga"))
    assert (signers, "belongs to nobody" in detail) == ("", True)


def test_somebody_without_the_role_is_named_and_not_counted() -> None:
    policy = RECORDED.trust(RECORDED.person("olga", "operator"))
    signers, detail = judged(RECORDED.bundle("olga"), policy)
    assert (signers, "olga is no maintainer" in detail) == ("", True)


@pytest.mark.parametrize("issuer", ["https://accounts.example.org", "", None])
def test_the_same_address_of_another_issuer_or_of_none_is_somebody_else(issuer: str | None) -> None:
    """An empty issuer would skip the library's check; past our model, verification refuses it again."""
    said: dict[str, Any] = {"identity": RECORDED.identity("mara").identity, "issuer": issuer}
    entry = SigstoreIdentity.model_construct(**said, repository=None, ref=None)
    loose = Person.model_construct(id="mara", name="Mara", roles=("maintainer",), openpgp=(), sigstore=(entry,))
    assert judged(RECORDED.bundle("mara"), RECORDED.trust(loose))[0] == ""


@pytest.mark.parametrize("name", ["ci-branch", "ci-fork"])
def test_a_ci_job_of_another_repository_or_ref_is_somebody_else(name: str) -> None:
    assert judged(RECORDED.bundle(name))[0] == ""


def test_a_workflow_that_others_call_counts_by_the_repository_that_calls_it() -> None:
    """Identity and issuer fit; the repository, or the ref, does not."""
    for changes in ({"repository": "https://ci.private.invalid/mallory/agents"}, {"ref": "refs/heads/feature"}):
        ci = Person(id="ci", name="CI", roles=("maintainer",), sigstore=(RECORDED.job(**changes),))
        signers, detail = judged(RECORDED.bundle("ci"), RECORDED.trust(ci))
        assert (signers, "not of the repository and ref" in detail) == ("", True)
    assert RECORDED.job().ref == MAIN


@pytest.mark.parametrize("part", ["tlogs", "ctlogs", "certificateAuthorities", "timestampAuthorities"])
def test_a_retired_entry_of_the_root_is_not_trusted(part: str) -> None:
    """The library ignores the end of a log or of Fulcio when it verifies."""

    def ended(after: timedelta) -> bytes:
        root = json.loads(RECORDED.root)
        for entry in root[part]:
            period = entry["publicKey"]["validFor"] if "publicKey" in entry else entry["validFor"]
            period["end"] = (RECORDED.now() + after).strftime("%Y-%m-%dT%H:%M:%SZ")
        return json.dumps(root).encode()

    assert judged(RECORDED.bundle("mara"), RECORDED.trust(root=ended(timedelta(hours=-1))))[0] == ""
    assert judged(RECORDED.bundle("mara"), RECORDED.trust(root=ended(timedelta(hours=1))))[0] == "mara"


def test_a_certificate_that_no_log_has_promised_to_hold_is_refused() -> None:
    authority = KeylessAuthority()
    mara = RECORDED.person("mara", "maintainer", sigstore=(RECORDED.identity("mara"),))
    policy = RECORDED.trust(mara, root=authority.trusted_root())
    identity, issuer = RECORDED.identity("mara").identity, RECORDED.said["issuer"]
    assert judged(authority.sign(RECORDED.document, identity, issuer), policy)[0] == "mara"
    signers, detail = judged(replace(authority, promises=False).sign(RECORDED.document, identity, issuer), policy)
    assert (signers, "signed certificate timestamp" in detail) == ("", True)


@pytest.mark.parametrize("of", ["other.txt", "document.json"])
def test_the_log_entry_of_another_artifact_or_signature_is_refused(of: str) -> None:
    content = json.loads(RECORDED.bundle("mara"))
    another = json.loads(RECORDED.bundle("mara" if of == "other.txt" else "ci", of))
    content["verificationMaterial"]["tlogEntries"] = another["verificationMaterial"]["tlogEntries"]
    assert judged(json.dumps(content).encode())[0] == ""


def test_the_timestamp_of_another_signature_is_refused() -> None:
    content, another = json.loads(RECORDED.bundle("mara")), json.loads(RECORDED.bundle("ci"))
    name = "timestampVerificationData"
    content["verificationMaterial"][name] = another["verificationMaterial"][name]
    signers, detail = judged(json.dumps(content).encode())
    assert (signers, "verified time" in detail) == ("", True)


def test_an_attestation_that_names_the_document_is_no_signature_of_it() -> None:
    """What `cosign attest` makes: a DSSE bundle, genuine, by the same person."""
    signers, detail = judged(RECORDED.bundle("mara.dsse"))
    assert (signers, "no message signature" in detail) == ("", True)


def test_a_signature_of_the_document_is_no_decision_and_no_decision_is_one_of_it() -> None:
    policy = RECORDED.trust(RECORDED.person("alva", "board", "maintainer", "author"))
    envelope = RECORDED.envelope("approval_alva")
    assert verify_approval(envelope, policy, RECORDED.now())[0] == "alva"
    bundle = dsse.decode_base64(envelope.signatures[0].sig, "signature")
    assert judged(bundle, policy)[0] == ""
    mara = RECORDED.trust(RECORDED.person("mara", "board", "maintainer"))
    signed = base64.b64encode(RECORDED.bundle("mara")).decode()
    swapped = envelope.model_copy(
        update={"signatures": (type(envelope.signatures[0])(keyid=RECORDED.identity("mara").identity, sig=signed),)}
    )
    with pytest.raises(UntrustedError, match="does not verify"):
        verify_approval(swapped, mara, RECORDED.now())


def test_an_envelope_that_names_another_signer_is_refused() -> None:
    envelope = RECORDED.envelope("approval_alva")
    named = type(envelope.signatures[0])(keyid=RECORDED.identity("bruno").identity, sig=envelope.signatures[0].sig)
    with pytest.raises(UntrustedError, match="belongs to nobody who may sign here"):
        verify_approval(envelope.model_copy(update={"signatures": (named,)}), RECORDED.trust(), RECORDED.now())


def test_a_decision_ends_though_its_signature_verifies_for_ever() -> None:
    from constitution.trust.approval_rules import time_refusal

    _, decided = verify_approval(RECORDED.envelope("approval_alva"), RECORDED.trust(), RECORDED.now())
    assert time_refusal(decided.issued_at, decided.expires_at, decided.expires_at + timedelta(seconds=1)) is not None


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every text in a bundle that is base64."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))
    elif isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
        except ValueError:
            return
        if len(raw) >= 16:
            yield path


BUNDLE = json.loads(RECORDED.bundle("mara"))


@pytest.mark.parametrize("path", list(leaves(BUNDLE)), ids=lambda path: ".".join(map(str, path)))
def test_a_flipped_bit_is_refused_wherever_it_is(path: tuple[Any, ...]) -> None:
    content = copy.deepcopy(BUNDLE)
    holder: Any = content
    for step in path[:-1]:
        holder = holder[step]
    raw = base64.b64decode(holder[path[-1]])
    # Of a log's id the library takes four bytes, for a hint which of the root's keys to try; the key decides.
    positions = {0, 3} if path[-1] == "keyId" else {0, len(raw) // 3, len(raw) // 2, len(raw) - 1}
    for position in positions:
        flipped = bytearray(raw)
        flipped[position] ^= 1
        holder[path[-1]] = base64.b64encode(flipped).decode()
        assert judged(json.dumps(content).encode())[0] == "", position


def test_a_changed_document_is_refused() -> None:
    assert judged(RECORDED.bundle("mara"), document=RECORDED.document + b" ")[0] == ""
