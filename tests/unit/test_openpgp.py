"""OpenPGP: what GnuPG accepts with exit code 0 and we refuse, and what the library leaves to its callers."""

from datetime import UTC, datetime, timedelta

import pysequoia
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pysequoia.packet import PacketPile, Tag

from constitution.errors import UntrustedError
from constitution.trust.trust_policy import TrustPolicy
from signatures import openpgp
from signatures.verify import SignatureReport, verify_document
from tests.unit.keyring import DATA, NOW, keyring, toml_of
from tests.unit.openpgp_stubs import stub_on_token, with_secret_parts

FILES = DATA / "openpgp"
DOCUMENT = (FILES / "document.txt").read_bytes()
FINGERPRINTS = {
    "grace": "85450cb3a6a142f9b2a100fddb9c68a47e666e80",
    "weak": "f69675ffb499c9d35e6c852b653e6f7a75f7fa6b",
    "elsa": "2a35cdfdeab3448efc6d07cc22f96cefd9fabba9",
    "rex": "48729fdaa8062b71dcd1d4fe24420e86d774b6ab",
    "sue": "2c5b83e8ca08ac21e40fc365bd1385fb5b4a175b",
}
MADE = datetime(2026, 11, 22, 21, 30, tzinfo=UTC)


def trust_in(certificate: str | bytes, person: str, fingerprint: str = "") -> TrustPolicy:
    """Return a policy whose only maintainer has this certificate."""
    ring = keyring()
    data = (FILES / certificate).read_bytes() if isinstance(certificate, str) else certificate
    board = [(p.id, ["board"], [(p.openpgp[0].fingerprint, p.openpgp[0].certificate)]) for p in ring.trust.people[2:]]
    people = [(person, ["maintainer"], [(fingerprint or FINGERPRINTS[person], "x.asc")]), *board]
    return TrustPolicy.parse(toml_of(people, ring.service, ring.worker), {**ring.files, "x.asc": data})


def judged(signature: str, certificate: str | bytes, person: str, now: datetime = MADE) -> SignatureReport:
    data = (FILES / signature).read_bytes()
    return verify_document(DOCUMENT, [data], trust_in(certificate, person), now)


@pytest.mark.parametrize("signature", ["good.sig", "good.asc"])
def test_a_signature_by_gnupg_is_accepted(signature: str) -> None:
    report = judged(signature, "grace.asc", "grace")
    assert report.signers == ("grace",), report


@pytest.mark.parametrize(
    ("signature", "certificate", "person", "said"),
    [
        ("sha1.sig", "grace.asc", "grace", "uses SHA1"),
        ("rsa1024.sig", "weak.asc", "weak", "RSA1024 is not considered secure"),
        ("future.sig", "grace.asc", "grace", "is dated in the future"),
        ("revoked.sig", "rex-revoked.asc", "rex", "is revoked"),
        ("subkey.sig", "sue-revoked.asc", "sue", "signing subkey is revoked"),
        ("expired-key.sig", "elsa.asc", "elsa", "expired at 2025-01-31"),
        ("text.sig", "grace.asc", "grace", "not a document signature"),
        ("clear.txt", "grace.asc", "grace", "neither a Sigstore bundle nor an OpenPGP signature"),
        ("good.sig", "rex-before.asc", "rex", "nobody who may sign here"),
    ],
)
def test_what_must_not_count_is_refused_with_its_reason(
    signature: str, certificate: str, person: str, said: str
) -> None:
    report = judged(signature, certificate, person)
    assert report.signers == ()
    assert said in report.findings[0].detail
    with pytest.raises(UntrustedError, match="the trust policy takes 1 maintainer"):
        report.require(1)


def test_the_same_signatures_counted_before_the_revocation() -> None:
    """So the refusals above are about the revocation."""
    assert judged("revoked.sig", "rex-before.asc", "rex").signers == ("rex",)
    assert judged("subkey.sig", "sue-before.asc", "sue").signers == ("sue",)


def test_an_expired_signature_is_refused() -> None:
    report = judged("expiring.sig", "grace.asc", "grace", MADE + timedelta(days=2))
    assert report.signers == ()
    assert "expired at 2026-11-23" in report.findings[0].detail


def test_an_expired_certificate_is_refused_by_the_time_given() -> None:
    tsk = pysequoia.Tsk.generate(user_id="Short <s@example.org>", validity_seconds=3600)
    cert = tsk.extract_certificate()
    trust = trust_in(str(cert).encode(), "short", cert.fingerprint)
    signature = openpgp.sign_detached(DOCUMENT, bytes(tsk))
    now = datetime.now(UTC)
    assert len(verify_document(DOCUMENT, [signature], trust, now).signers) == 1
    late = verify_document(DOCUMENT, [signature], trust, now + timedelta(hours=2))
    assert late.signers == ()
    assert "expired" in late.findings[0].detail


@pytest.mark.parametrize("order", [("rex-before.asc", "rex-revoked.asc"), ("rex-revoked.asc", "rex-before.asc")])
def test_an_old_copy_beside_a_revoked_certificate_hides_nothing(order: tuple[str, str]) -> None:
    """As two armor blocks the file is refused; as two binary copies they are merged."""
    armored = b"".join((FILES / name).read_bytes() for name in order)
    report = judged("revoked.sig", armored, "rex")
    assert report.signers == ()
    assert "several armor blocks" in report.findings[0].detail
    binary = b"".join(bytes(pysequoia.Cert.from_bytes((FILES / name).read_bytes())) for name in order)
    report = judged("revoked.sig", binary, "rex")
    assert report.signers == ()
    assert "is revoked" in report.findings[0].detail


def test_a_secret_key_is_no_certificate() -> None:
    tsk, certificate, fingerprint = openpgp.generate_key("Open <o@example.org>")
    openpgp.Certificate(certificate, fingerprint)
    with pytest.raises(openpgp.OpenPgpError, match="holds a secret key"):
        openpgp.Certificate(tsk, fingerprint)


def test_version_6_keys_are_accepted() -> None:
    tsk = pysequoia.Tsk.generate(user_id="Six <six@example.org>", profile=pysequoia.Profile.RFC9580)
    cert = tsk.extract_certificate()
    assert len(cert.fingerprint) == 64
    trust = trust_in(bytes(cert), "six", cert.fingerprint)
    assert verify_document(DOCUMENT, [openpgp.sign_detached(DOCUMENT, bytes(tsk))], trust, NOW).signers == ("six",)


class TestSignatureFiles:
    def test_several_armor_blocks_are_refused(self) -> None:
        block = (FILES / "good.asc").read_bytes()
        with pytest.raises(openpgp.OpenPgpError, match="several armor blocks"):
            openpgp.split(block + block)

    @pytest.mark.parametrize("extra", [b"trailing", b"\n\nx"])
    def test_text_around_the_block_is_refused(self, extra: bytes) -> None:
        with pytest.raises(openpgp.OpenPgpError, match="text around"):
            openpgp.split((FILES / "good.asc").read_bytes() + extra)

    def test_bytes_after_the_packet_are_refused(self) -> None:
        with pytest.raises(openpgp.OpenPgpError):
            openpgp.split((FILES / "good.sig").read_bytes() + b"x")

    def test_a_key_packet_among_the_signatures_is_refused(self) -> None:
        ring = keyring()
        certificate = bytes(pysequoia.Cert.from_bytes(ring.files["certificates/mara.asc"]))
        with pytest.raises(openpgp.OpenPgpError, match="not a document signature"):
            openpgp.split((FILES / "good.sig").read_bytes() + certificate)

    def test_more_than_sixteen_packets_are_refused(self) -> None:
        with pytest.raises(openpgp.OpenPgpError, match="17 packets"):
            openpgp.split((FILES / "good.sig").read_bytes() * 17)

    @given(st.binary(max_size=300))
    def test_arbitrary_bytes_are_refused_by_the_one_error(self, data: bytes) -> None:
        with pytest.raises(UntrustedError):
            openpgp.split(data)

    @given(st.data())
    def test_a_changed_byte_never_makes_another_document_count(self, data: st.DataObject) -> None:
        """OpenPGP signatures are malleable outside what they sign, so only the signer and the document are asserted."""
        signature = bytearray((FILES / "good.sig").read_bytes())
        position = data.draw(st.integers(0, len(signature) - 1))
        signature[position] ^= data.draw(st.integers(1, 255))
        trust = trust_in("grace.asc", "grace")
        assert verify_document(DOCUMENT + b"!", [bytes(signature)], trust, MADE).signers == ()
        assert set(verify_document(DOCUMENT, [bytes(signature)], trust, MADE).signers) <= {"grace"}


class TestCounting:
    def test_a_person_with_two_keys_counts_once(self) -> None:
        ring = keyring()
        both = [openpgp.sign_detached(DOCUMENT, ring.tsk[name]) for name in ("mara", "mara-second")]
        report = verify_document(DOCUMENT, both, ring.trust, NOW)
        assert report.signers == ("mara",)
        assert [finding.counted for finding in report.findings] == [True, True]
        with pytest.raises(UntrustedError):
            report.require(2)

    def test_two_people_count_twice_also_in_one_file(self) -> None:
        ring = keyring()
        file = b"".join(openpgp.sign_detached(DOCUMENT, ring.tsk[name]) for name in ("marc", "mara"))
        verify_document(DOCUMENT, [file], ring.trust, NOW).require(2)

    def test_who_is_no_maintainer_is_named_but_not_counted(self) -> None:
        ring = keyring()
        report = verify_document(DOCUMENT, [openpgp.sign_detached(DOCUMENT, ring.tsk["alva"])], ring.trust, NOW)
        assert report.signers == ()
        assert report.findings[0].person == "alva"
        assert "alva is no maintainer" in report.findings[0].detail

    def test_rubbish_beside_a_good_signature_blocks_nothing(self) -> None:
        ring = keyring()
        good = openpgp.sign_detached(DOCUMENT, ring.tsk["mara"])
        report = verify_document(DOCUMENT, [b"", b"{", b"\x88\x00", b"x" * 2_000_000, good], ring.trust, NOW)
        report.require(1)
        assert [finding.counted for finding in report.findings] == [False, False, False, False, True]

    def test_only_sixteen_files_are_read(self) -> None:
        ring = keyring()
        good = openpgp.sign_detached(DOCUMENT, ring.tsk["mara"])
        assert verify_document(DOCUMENT, [b"x"] * 16 + [good], ring.trust, NOW).signers == ()


class TestKeys:
    def test_a_new_key_signs_and_is_not_locked(self) -> None:
        tsk, certificate, fingerprint = openpgp.generate_key("New <new@example.org>")
        assert openpgp.fingerprint_of_key(tsk) == fingerprint
        assert not openpgp.is_locked(tsk)
        assert b"PRIVATE" not in certificate

    def test_what_is_no_key_is_refused(self) -> None:
        ring = keyring()
        for data in (b"", b"x", ring.files["certificates/mara.asc"]):
            with pytest.raises(openpgp.OpenPgpError):
                openpgp.sign_detached(DOCUMENT, data)

    def test_a_stub_of_a_key_on_a_token_is_named_and_never_called_locked(self) -> None:
        tsk, certificate, fingerprint = openpgp.generate_key("New <new@example.org>")
        on_token = stub_on_token(tsk, certificate)
        with pytest.raises(openpgp.OpenPgpError, match="on a token") as refused:
            openpgp.is_locked(on_token)
        assert "use --print-statement FILE first" in refused.value.hint
        assert f"gpg --local-user {fingerprint} --detach-sign" in refused.value.hint

    def test_a_key_file_without_the_secret_parts_is_named(self) -> None:
        tsk, certificate, _ = openpgp.generate_key("New <new@example.org>")
        absent = with_secret_parts(tsk, certificate, lambda public, _: public + b"\xff\x00\x65\x00GNU\x01")
        with pytest.raises(openpgp.OpenPgpError, match="lacks the secret part"):
            openpgp.is_locked(absent)

    def test_a_signing_subkey_signs_without_its_primary_key(self) -> None:
        """As `gpg --export-secret-subkeys` writes it: the primary key is kept elsewhere."""
        tsk, certificate, _ = openpgp.generate_key("New <new@example.org>")
        first: list[bytes] = []

        def primary_absent(public: bytes, secret: bytes) -> bytes:
            first.append(public)
            return secret if len(first) > 1 else public + b"\xff\x00\x65\x00GNU\x01"

        alone = with_secret_parts(tsk, certificate, primary_absent)
        assert not openpgp.is_locked(alone)
        assert openpgp.sign_detached(DOCUMENT, alone)

    def test_a_key_that_may_only_certify_is_no_locked_one(self) -> None:
        tsk, certificate, _ = openpgp.generate_key("New <new@example.org>")
        parts = list(PacketPile.from_bytes(certificate))
        subkey = next(place for place, part in enumerate(parts) if part.tag == Tag.PublicSubkey)
        alone = b"".join(bytes(part) for part in parts[:subkey])
        with pytest.raises(openpgp.OpenPgpError, match="the primary key may not sign"):
            openpgp.is_locked(with_secret_parts(tsk, alone, lambda _, secret: secret))


LINES = b'{\n  "title": "Lines"\n}\n'


@pytest.mark.parametrize(
    ("signed", "copy", "said"),
    [
        (LINES, LINES.replace(b"\n", b"\r\n"), "it verifies with LF line ends"),
        (LINES.replace(b"\n", b"\r\n"), LINES, "it verifies with CRLF line ends"),
        (LINES, b"\xef\xbb\xbf" + LINES, "it verifies with no byte order mark"),
        (LINES, b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n"), "it verifies with LF line ends"),
        (b"\xef\xbb\xbf" + LINES, LINES, "it verifies with a byte order mark"),
    ],
)
def test_a_copy_with_other_line_ends_is_named_and_never_accepted(signed: bytes, copy: bytes, said: str) -> None:
    ring = keyring()
    signature = openpgp.sign_detached(signed, ring.tsk["mara"])
    assert verify_document(signed, [signature], ring.trust, NOW).signers == ("mara",)
    report = verify_document(copy, [signature], ring.trust, NOW)
    assert report.signers == ()
    assert said in report.findings[0].detail
    with pytest.raises(UntrustedError):
        report.require(1)


def test_a_document_that_was_changed_otherwise_gets_no_such_hint() -> None:
    ring = keyring()
    signature = openpgp.sign_detached(LINES, ring.tsk["mara"])
    (finding,) = verify_document(LINES.replace(b"Lines", b"Wines"), [signature], ring.trust, NOW).findings
    assert "it verifies" not in finding.detail
