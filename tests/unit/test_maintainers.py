"""How many people must sign a document, by the kind of its release, and who counts as one."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from constitution.errors import InvalidRequestError, UntrustedError
from constitution.release import Kind
from constitution.trust.trust_policy import SigstoreIdentity, Thresholds, TrustPolicy
from constitution_client.main import run
from signatures.openpgp import generate_key, sign_detached
from signatures.trust_files import load_trust
from signatures.verify import verify_document
from tests.keyless import ISSUER, KeylessAuthority
from tests.unit.keyring import keyring

DOCUMENT = b'{"a": "document"}'
AUTHORITY = KeylessAuthority()


@pytest.mark.parametrize(
    ("set_to", "update", "first", "rollback", "reissue"),
    [
        ({}, 1, 1, 1, 1),
        ({"document": 2}, 2, 2, 2, 2),
        ({"document": 2, "document_first_release": 3}, 2, 3, 2, 2),
        ({"document": 2, "document_rollback": 1}, 2, 2, 1, 2),
    ],
)
def test_each_kind_of_release_takes_its_own_number_of_maintainers(
    set_to: dict[str, int], update: int, first: int, rollback: int, reissue: int
) -> None:
    thresholds = Thresholds.model_validate(set_to)
    assert thresholds.for_document(Kind.UPDATE, first=False) == update
    assert thresholds.for_document(Kind.UPDATE, first=True) == first
    assert thresholds.for_document(Kind.ROLLBACK, first=False) == rollback
    assert thresholds.for_document(Kind.REISSUE, first=False) == reissue


@pytest.mark.parametrize("name", ["document", "document_first_release", "document_rollback"])
def test_no_more_maintainers_can_be_asked_for_than_there_are(name: str) -> None:
    ring = keyring()  # of two maintainers and three members of the board
    with pytest.raises(InvalidRequestError) as refused:
        TrustPolicy.parse(f"{ring.toml}\n[thresholds]\n{name} = 3\n", ring.files)
    assert [issue.path for issue in refused.value.issues] == [f"/thresholds/{name}"]
    with pytest.raises(InvalidRequestError):
        TrustPolicy.parse(f"{ring.toml}\n[thresholds]\n{name} = 0\n", ring.files)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrustPolicy, bytes]:
    """What init makes for 2 of 3: Mara by key and keylessly, Marc by a key made here, Nils keylessly; Mara's key."""
    folder = tmp_path_factory.mktemp("init")
    secret, certificate, _ = generate_key("Mara <mara@example.org>")
    (folder / "mara.asc").write_bytes(certificate)
    (folder / "root.json").write_bytes(AUTHORITY.trusted_root())
    arguments = ["--maintainers", f"mara={folder / 'mara.asc'},marc,nils", "--board", "alva,bruno", "--generate"]
    arguments += ["--sigstore", f"mara=mara@example.org,{ISSUER}", "--sigstore", f"nils=nils@example.org,{ISSUER}"]
    arguments += ["--sigstore-root", str(folder / "root.json"), "--threshold", "document=2"]
    assert run(["init", "--directory", str(folder / "made"), "--environment", "production", *arguments]) == 0
    assert {path.stem for path in (folder / "made" / "keys").glob("*.tsk")} == {"marc", "alva", "bruno"}
    return load_trust(folder / "made" / "trust" / "trust.toml"), secret


def test_two_of_three_are_two_people_whatever_they_sign_by(made: tuple[TrustPolicy, bytes]) -> None:
    policy, secret = made
    now = datetime.now(UTC)
    by_mara, keyless_mara = sign_detached(DOCUMENT, secret), AUTHORITY.sign(DOCUMENT, "mara@example.org")
    keyless_nils = AUTHORITY.sign(DOCUMENT, "nils@example.org")

    def signers(*signatures: bytes) -> tuple[str, ...]:
        report = verify_document(DOCUMENT, signatures, policy, now)
        if len(report.signers) < 2:
            with pytest.raises(UntrustedError, match="takes 2 maintainers"):
                report.require(policy.thresholds.for_document(Kind.UPDATE, first=False))
        else:
            report.require(policy.thresholds.for_document(Kind.UPDATE, first=False))
        return report.signers

    assert signers(by_mara) == ("mara",)
    assert signers(by_mara, keyless_mara, keyless_mara) == ("mara",)
    assert signers(keyless_nils, AUTHORITY.sign(DOCUMENT, "nils@example.org")) == ("nils",)
    assert signers(by_mara, keyless_nils) == ("mara", "nils")
    assert signers(keyless_mara, keyless_nils) == ("mara", "nils")


def test_a_keyless_signature_counts_by_identity_issuer_root_logs_and_document(made: tuple[TrustPolicy, bytes]) -> None:
    policy, _ = made
    nils, another = "nils@example.org", KeylessAuthority()
    refused = {
        "belongs to nobody": AUTHORITY.sign(DOCUMENT, nils, "https://login.example.net"),
        "belongs to nobody who": AUTHORITY.sign(DOCUMENT, "nils@example.net"),
        "chain": another.sign(DOCUMENT, nils),
        "SCT": replace(AUTHORITY, certificate_log=another.certificate_log).sign(DOCUMENT, nils),
        "log entry": replace(AUTHORITY, signature_log=another.signature_log).sign(DOCUMENT, nils),
        "digest mismatch": AUTHORITY.sign(DOCUMENT + b" ", nils),
    }
    for reason, bundle in refused.items():
        report = verify_document(DOCUMENT, [bundle], policy, datetime.now(UTC))
        assert (report.signers, reason in report.findings[0].detail) == ((), True), (reason, report.findings)
    early = datetime.now(UTC) - timedelta(hours=1)
    assert verify_document(DOCUMENT, [AUTHORITY.sign(DOCUMENT, nils)], policy, early).signers == ()


def test_a_ci_run_counts_by_its_repository_and_ref(made: tuple[TrustPolicy, bytes]) -> None:
    """A workflow that others may call has one identity in every repository that calls it."""
    policy, _ = made
    workflow = "https://github.com/acme/shared/.github/workflows/release.yml@refs/heads/main"
    issuer, ours, main = (
        "https://token.actions.githubusercontent.com",
        "https://github.com/acme/agents",
        "refs/heads/main",
    )
    entry = SigstoreIdentity(identity=workflow, issuer=issuer, repository=ours, ref=main)
    people = tuple(p.model_copy(update={"sigstore": (entry,)}) if p.id == "nils" else p for p in policy.people)
    policy = policy.model_copy(update={"people": people})

    def signers(**run_of: str) -> tuple[tuple[str, ...], str]:
        bundle = AUTHORITY.sign(DOCUMENT, workflow, issuer, **run_of)
        report = verify_document(DOCUMENT, [bundle], policy, datetime.now(UTC))
        return report.signers, report.findings[0].detail

    assert signers(repository=ours, ref=main)[0] == ("nils",)
    for run_of in (
        {"repository": "https://github.com/mallory/agents", "ref": main},
        {"repository": ours, "ref": "refs/pull/7/merge"},
        {"repository": ours + "-fork", "ref": main},
        {"repository": ours},
        {"ref": main},
        {},
    ):
        who, detail = signers(**run_of)
        assert (who, "not of the repository and ref" in detail) == ((), True), (run_of, detail)
    for wrong in ({"repository": ""}, {"ref": ""}, {"ref": "main"}, {"repository": "acme/agents"}):
        with pytest.raises(ValidationError):
            SigstoreIdentity.model_validate({"identity": workflow, "issuer": issuer, **wrong})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sigstore", f"nils=nils@example.org,{ISSUER}"], "--sigstore-root"),
        (["--sigstore-root", "root.json"], "--sigstore"),
        (["--sigstore", f"olof=o@example.org,{ISSUER}", "--sigstore-root", "root.json"], "olof, who has no role"),
        (["--sigstore", "nils=nils@example.org", "--sigstore-root", "root.json"], "the Sigstore identity of nils"),
        (["--sigstore", "nils=,https://x", "--sigstore-root", "root.json"], "the Sigstore identity of nils"),
        (["--sigstore", "nils=n@x.org,", "--sigstore-root", "root.json"], "the Sigstore identity of nils"),
        (["--threshold", "document_rollback=3"], "takes 3 people with role maintainer, but 2 have it"),
    ],
)
def test_a_ceremony_that_cannot_be_meant_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("root.json").write_bytes(AUTHORITY.trusted_root())
    people = ["--maintainers", "mara,nils", "--board", "alva,bruno", "--generate"]
    assert run(["init", "--directory", "made", "--environment", "production", *people, *options]) in {1, 2}
    assert said in capsys.readouterr().err
    assert not Path("made/trust").exists()


def test_a_file_is_judged_by_the_release_that_it_could_be_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ["init", "--directory", str(tmp_path), "--environment", "development", "--maintainers", "mara,marc"]
    assert run([*made, "--board", "alva,bruno", "--threshold", "document_first_release=2"]) == 0
    for content, needed in (('{"previous": null}', 2), ('{"previous": {}}', 1), ("{}", 1), ("no JSON", 1)):
        file = tmp_path / f"{needed}-{len(content)}"
        file.write_text(content)
        signature = file.with_suffix(".sig")
        signature.write_bytes(sign_detached(file.read_bytes(), (tmp_path / "keys" / "mara.tsk").read_bytes()))
        trust = ["--trust", str(tmp_path / "trust" / "trust.toml")]
        capsys.readouterr()
        code = run(["verify-signature", "--document", str(file), "--signature", str(signature), *trust, "--json"])
        assert (code, json.loads(capsys.readouterr().out)["needed"]) == (needed - 1, needed), content
