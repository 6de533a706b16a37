"""Sigstore: a real public bundle against a pinned root, offline; and everything about it that can be wrong."""

import base64
import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sigstore as sigstore_python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from constitution.errors import UntrustedError
from constitution.release import Envelope
from constitution.trust.trust_policy import SigstoreIdentity, TrustPolicy
from signatures import dsse, sigstore
from signatures.verify import verify_document
from tests.unit.keyring import DATA, keyring, toml_of

DOCUMENT = (DATA / "sigstore" / "new_bundle.txt").read_bytes()
BUNDLE = (DATA / "sigstore" / "new_bundle.txt.sigstore.json").read_bytes()
STORE = Path(sigstore_python.__file__).parent / "_store"
ROOT = next(STORE.glob("*sigstore.dev/trusted_root.json")).read_bytes()
STAGING_ROOT = next(STORE.glob("*sigstage.dev/trusted_root.json")).read_bytes()
IDENTITY = "aryadeeptade@gmail.com"
ISSUER = "https://github.com/login/oauth"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def trust(identity: str = IDENTITY, issuer: str = ISSUER, root: bytes = ROOT) -> TrustPolicy:
    ring = keyring()
    people = [(p.id, list(p.roles), [(k.fingerprint, k.certificate) for k in p.openpgp]) for p in ring.trust.people]
    pinned = f'[sigstore]\ntrusted_root = "root.json"\nsha256 = "{hashlib.sha256(root).hexdigest()}"\n'
    toml = toml_of(people, ring.service, ring.worker, pinned)
    entry = f'id = "marc"\nsigstore = [{{ identity = "{identity}", issuer = "{issuer}" }}]'
    return TrustPolicy.parse(toml.replace('id = "marc"', entry), {**ring.files, "root.json": root})


def refused(document: bytes, bundle: bytes, policy: TrustPolicy, now: datetime = NOW) -> str:
    with pytest.raises(UntrustedError) as caught:
        sigstore.verify(document, bundle, policy.people, policy, now)
    report = verify_document(document, [bundle], policy, now)
    assert report.signers == ()
    return caught.value.message


def changed(**changes: Any) -> bytes:
    return json.dumps({**json.loads(BUNDLE), **changes}).encode()


def test_a_real_bundle_is_accepted_and_names_its_person() -> None:
    report = verify_document(DOCUMENT, [BUNDLE], trust(), NOW)
    assert report.signers == ("marc",)
    assert report.findings[0].kind == "sigstore"
    assert ISSUER in report.findings[0].detail


@pytest.mark.parametrize(
    ("identity", "issuer"),
    [
        ("somebody@example.org", ISSUER),
        (IDENTITY, "https://accounts.google.com"),
        (IDENTITY.upper(), ISSUER),
        (IDENTITY, ISSUER + "/"),
    ],
)
def test_another_identity_or_issuer_is_refused(identity: str, issuer: str) -> None:
    assert "nobody who may sign here" in refused(DOCUMENT, BUNDLE, trust(identity, issuer))


def test_an_empty_issuer_never_skips_the_check() -> None:
    """The policy's model refuses it at load; past that model, verification refuses it again."""
    policy = trust()
    marc = policy.person("marc")
    assert marc is not None
    loose = marc.model_copy(update={"sigstore": (SigstoreIdentity.model_construct(identity=IDENTITY, issuer=""),)})
    with pytest.raises(UntrustedError, match="nobody who may sign here"):
        sigstore.verify(DOCUMENT, BUNDLE, [loose], policy, NOW)


def test_a_tampered_document_is_refused() -> None:
    assert "does not verify" in refused(DOCUMENT + b" ", BUNDLE, trust())


def test_another_root_is_refused() -> None:
    assert "does not verify" in refused(DOCUMENT, BUNDLE, trust(root=STAGING_ROOT))


def test_a_bundle_from_the_future_is_refused() -> None:
    assert "future" in refused(DOCUMENT, BUNDLE, trust(), datetime(2026, 8, 23, 16, tzinfo=UTC))


@pytest.mark.parametrize("part", ["tlogs", "ctlogs", "certificateAuthorities"])
def test_a_retired_authority_is_not_trusted(part: str) -> None:
    """sigstore-python itself ignores the end of validity when it verifies."""
    root = json.loads(ROOT)
    for entry in root[part]:
        period = entry["publicKey"]["validFor"] if "publicKey" in entry else entry["validFor"]
        period["end"] = (NOW - timedelta(days=1)).isoformat().replace("+00:00", "Z")
    assert "does not verify" in refused(DOCUMENT, BUNDLE, trust(root=json.dumps(root).encode()))


SIGNED = datetime.fromtimestamp(
    int(json.loads(BUNDLE)["verificationMaterial"]["tlogEntries"][0]["integratedTime"]), tz=UTC
)


@pytest.mark.parametrize("part", ["tlogs", "ctlogs", "certificateAuthorities"])
def test_an_authority_that_began_after_the_signature_is_not_trusted(part: str) -> None:
    def root_that_began(moment: datetime) -> bytes:
        root = json.loads(ROOT)
        for entry in root[part]:
            period = entry["publicKey"]["validFor"] if "publicKey" in entry else entry["validFor"]
            period["start"] = moment.isoformat().replace("+00:00", "Z")
        return json.dumps(root).encode()

    late, early = (trust(root=root_that_began(SIGNED + timedelta(seconds=s))) for s in (1, 0))
    assert "does not verify" in refused(DOCUMENT, BUNDLE, late)
    assert verify_document(DOCUMENT, [BUNDLE], early, NOW).signers == ("marc",)


@pytest.mark.parametrize(
    "bundle",
    [
        b"{",
        b"{}",
        b"[" * 70,
        changed(mediaType="x"),
        changed(verificationMaterial=None),
        changed(verificationMaterial={}),
        changed(messageSignature=None),
        changed(messageSignature={"signature": "!"}),
        changed(messageSignature={"messageDigest": {"algorithm": "SHA2_256", "digest": ""}, "signature": ""}),
        changed(dsseEnvelope={}),
        b'{"messageSignature": {}, "messageSignature": {}}',
    ],
)
def test_a_malformed_bundle_is_refused(bundle: bytes) -> None:
    assert refused(DOCUMENT, bundle, trust())


def test_numbers_beyond_their_range_are_refused() -> None:
    """They reach the library as OverflowError and ValueError."""
    for field, value in (
        ("integratedTime", "99999999999999999999"),
        ("integratedTime", "-1"),
        ("logIndex", "x"),
        ("logIndex", str(2**70)),
    ):
        content = json.loads(BUNDLE)
        content["verificationMaterial"]["tlogEntries"][0][field] = value
        assert refused(DOCUMENT, json.dumps(content).encode(), trust())


LEAVES = [
    ("verificationMaterial", "certificate", "rawBytes"),
    ("verificationMaterial", "tlogEntries", 0, "canonicalizedBody"),
    ("verificationMaterial", "tlogEntries", 0, "inclusionPromise", "signedEntryTimestamp"),
    ("verificationMaterial", "tlogEntries", 0, "inclusionProof", "rootHash"),
    ("verificationMaterial", "tlogEntries", 0, "logId", "keyId"),
    ("messageSignature", "messageDigest", "digest"),
    ("messageSignature", "signature"),
]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(LEAVES), st.data())
def test_a_changed_byte_in_what_counts_is_refused(leaf: tuple[Any, ...], data: st.DataObject) -> None:
    content = json.loads(BUNDLE)
    holder = content
    for step in leaf[:-1]:
        holder = holder[step]
    raw = bytearray(base64.b64decode(holder[leaf[-1]]))
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= data.draw(st.integers(1, 255))
    holder[leaf[-1]] = base64.b64encode(bytes(raw)).decode()
    policy = trust()
    assert verify_document(DOCUMENT, [json.dumps(content).encode()], policy, NOW).signers == ()


def test_without_a_pinned_root_no_bundle_counts() -> None:
    ring = keyring()
    assert "nobody who may sign here has a Sigstore identity" in refused(DOCUMENT, BUNDLE, ring.trust)


def test_both_kinds_of_one_person_count_once() -> None:
    from signatures.openpgp import sign_detached

    both = [BUNDLE, sign_detached(DOCUMENT, keyring().tsk["marc"])]
    assert verify_document(DOCUMENT, both, trust(), datetime.now(UTC)).signers == ("marc",)


def test_a_bundle_over_something_else_signs_no_envelope() -> None:
    envelope = Envelope(
        payloadType="application/json",
        payload=base64.b64encode(b"{}").decode(),
        signatures=(Envelope.Signature(keyid=IDENTITY, sig=base64.b64encode(BUNDLE).decode()),),
    )
    with pytest.raises(UntrustedError, match="does not verify"):
        dsse.verify_person(envelope, trust(), NOW)


def test_the_library_is_imported_only_when_a_bundle_comes() -> None:
    import subprocess

    code = "import signatures.verify, signatures.current, signatures.tokens, sys; sys.exit('sigstore' in sys.modules)"
    subprocess.run(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).resolve().parents[2]
    )
