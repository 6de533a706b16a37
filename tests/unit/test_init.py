"""The key ceremony for people who bring their own keys, as it is typed."""

import json
from pathlib import Path

import pytest

from constitution_client.main import run
from signatures.openpgp import generate_key, sign_detached
from signatures.trust_files import load_trust
from signatures.verify import verify_document
from tests.unit.keyring import NOW


def certificate(folder: Path, person: str, user: str = "") -> Path:
    secret, public, _ = generate_key(user or f"{person.title()} Berg <{person}@example.org>")
    (folder / f"{person}.tsk").write_bytes(secret)
    (folder / f"{person}.asc").write_bytes(public)
    return folder / f"{person}.asc"


def init(folder: Path, *options: str, environment: str = "production") -> int:
    return run(["init", "--directory", str(folder / "made"), "--environment", environment, *options])


def test_people_bring_their_certificates_and_keep_their_secret_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mara, alva = certificate(tmp_path, "mara"), certificate(tmp_path, "alva", "Álvá 💥 Berg <a@example.org>")
    bruno, chen = certificate(tmp_path, "bruno"), certificate(tmp_path, "chen")
    people = ["--maintainer", f"mara={mara}", "--board", f"alva={alva}", "--board", f"bruno={bruno}"]
    people += ["--board", f"chen={chen}", "--author", f"chen={chen}", "--threshold", "withdraw=3"]
    people += ["--operator", f"chen={chen}"]
    assert init(tmp_path, *people, "--json") == 0
    policy = load_trust(tmp_path / "made" / "trust" / "trust.toml")
    assert {person.id: person.roles for person in policy.people} == {
        "mara": ("maintainer",),
        "chen": ("author", "board", "operator"),
        "alva": ("board",),
        "bruno": ("board",),
    }
    assert [person.name for person in policy.people if person.id == "alva"] == ["Álvá 💥 Berg"]
    assert (policy.thresholds.withdraw, policy.thresholds.approval) == (3, 2)
    assert not list((tmp_path / "made" / "keys").glob("*.tsk"))
    printed = json.loads(capsys.readouterr().out)
    assert printed["generated"] == []
    signature = sign_detached(b"{}", (tmp_path / "mara.tsk").read_bytes())
    assert verify_document(b"{}", [signature], policy, NOW).signers == ("mara",)


def test_production_gets_no_example_people_and_no_key_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mara = certificate(tmp_path, "mara")
    assert init(tmp_path) == 2
    assert "nobody is named for production" in capsys.readouterr().err
    assert init(tmp_path, "--maintainer", f"mara={mara}", "--board", "alva", "--board", "bruno") == 2
    shown = capsys.readouterr().err
    assert "no certificate is given for alva, bruno" in shown
    assert "docs/trust-policy.md" in shown
    assert not (tmp_path / "made").exists()


def test_keys_are_made_where_that_is_asked_for_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mara = certificate(tmp_path, "mara")
    options = ["--maintainer", f"mara={mara}", "--board", "alva", "--board", "bruno", "--generate", "--text"]
    assert init(tmp_path, *options) == 0
    mara_in_policy = load_trust(tmp_path / "made" / "trust" / "trust.toml").person("mara")
    assert mara_in_policy is not None
    assert mara_in_policy.roles == ("maintainer", "author")
    alva = load_trust(tmp_path / "made" / "trust" / "trust.toml").person("alva")
    assert alva is not None
    assert alva.roles == ("board", "operator")  # nobody else was named for it
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "was made here" in line] == ["alva", "bruno"]
    assert {path.name for path in (tmp_path / "made" / "keys").glob("*.tsk")} == {"alva.tsk", "bruno.tsk"}
    assert any("docs/trust-policy.md" in line for line in lines)


def test_development_has_its_five_people(tmp_path: Path) -> None:
    assert init(tmp_path, environment="development") == 0
    policy = load_trust(tmp_path / "made" / "trust" / "trust.toml")
    assert [person.id for person in policy.people] == ["mara", "alva", "bruno", "chen", "olga"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--board", "=alva.asc"], 2, "is not ID=CERTIFICATE"),
        (["--board", "Alva=alva.asc"], 2, "is not ID=CERTIFICATE"),
        (["--board", "alva=alva.asc", "--author", "alva=other.asc"], 2, "two certificates"),
        (["--maintainer", "mara=missing.asc"], 1, "No such file"),
        (["--maintainer", "mara=mara.tsk"], 1, "holds a secret key"),
        (["--maintainer", "mara=empty"], 1, "mara"),
        (
            ["--maintainer", "mara=alva.asc", "--board", "alva=alva.asc", "--threshold", "approval=1"],
            1,
            "is the key of person mara too",
        ),
        (["--maintainer", "alva=alva.asc", "--board", "alva=alva.asc"], 1, "takes 2 people with role board"),
        (["--maintainer", "alva=alva.asc", "--threshold", "all=1"], 2, "--threshold 'all=1'"),
        (["--maintainer", "alva=alva.asc", "--threshold", "approval=0"], 2, "--threshold 'approval=0'"),
        (["--maintainer", "alva=alva.asc", "--threshold", "approval=" + "9" * 5000], 2, "is not NAME=NUMBER"),
        (["--maintainer", "alva=alva.asc", "--threshold", "approval"], 2, "is not NAME=NUMBER"),
    ],
)
def test_what_makes_no_policy_is_refused_and_leaves_nothing(
    *,
    options: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate(tmp_path, "alva")
    certificate(tmp_path, "mara")
    (tmp_path / "mara.tsk").chmod(0o600)
    (tmp_path / "empty").touch()
    monkeypatch.chdir(tmp_path)
    assert init(tmp_path, *options) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "made" / "trust").exists()
    assert not (tmp_path / "made" / "keys").exists()
