"""The next version of a trust policy from the command line: new, sign, verify, install."""

import json
from pathlib import Path
from typing import Any

import pytest

from constitution_client.main import run
from signatures import openpgp
from signatures.trust_files import load_trust
from tests.unit.keyring import keyring
from tests.unit.trust_chain import first, person, write_folder


@pytest.fixture
def trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """trust.toml of version 1, in force."""
    monkeypatch.chdir(tmp_path)
    path = write_folder(tmp_path / "trust", first())
    monkeypatch.setenv("TRUST_FILE", str(path))
    return path


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert run(["trust", *arguments, "--json"]) == code
        shown = capsys.readouterr()
        return json.loads(shown.out) if shown.out else shown.err

    return call


def key(name: str, secret: bytes | None = None) -> str:
    path = Path(f"{name}.tsk")
    path.touch(mode=0o600)
    path.write_bytes(secret or keyring().tsk[name])
    return str(path)


def sign(ask: Any, name: str, code: int = 0, secret: bytes | None = None) -> Any:
    return ask("sign", "next", "--key", key(name, secret), "--reason", "a test", "--yes", code=code)


def edit(before: str, after: str) -> None:
    text = Path("next/trust.toml").read_text()
    assert before in text
    Path("next/trust.toml").write_text(text.replace(before, after, 1))


def test_a_version_is_made_signed_verified_and_put_in_force(trust: Path, ask: Any) -> None:
    one = load_trust(trust)
    assert ask("new", "next")["version"] == 2
    edit('name = "Olga"', 'name = "Olga Berg"')
    assert sign(ask, "alva")["complete"] is False
    assert ask("verify", "next", code=1)["verified"] is False
    assert "NOT" not in ask("install", "next", code=1)
    assert load_trust(trust) == one
    assert sign(ask, "bruno")["complete"] is True
    report = ask("verify", "next", "--pinned", one.checksum)
    assert report["begins"] == {"version": 1, "checksum": one.checksum, "pinned": True}
    assert report["steps"][0]["signed_by_old"] == ["alva", "bruno"]
    assert ask("install", "next")["version"] == 2
    assert load_trust(trust).version == 2
    assert ask("verify", "trust")["verified"] is True
    assert "holds version 2, but version 2 is in force" in ask("install", "next", code=1)


def test_a_chain_from_another_beginning_than_the_pinned_one_is_not_verified(ask: Any, trust: Path) -> None:
    ask("new", "next")
    for name in ("alva", "bruno"):
        sign(ask, name)
    report = ask("verify", "next", "--pinned", "sha256:" + "0" * 64, code=1)
    assert report["verified"] is False
    assert report["steps"][0]["follows"] is True
    assert load_trust(trust).version == 1


def test_who_does_not_count_signs_nothing_and_nobody_signs_twice(ask: Any, trust: Path) -> None:
    ask("new", "next")
    assert "neither of the board nor of the root" in sign(ask, "mara", code=1)
    sign(ask, "alva")
    assert "alva has signed it" in sign(ask, "alva", code=1)
    mallory, _, _ = person("mallory", "board")
    assert "belongs to nobody in the trust policy" in sign(ask, "mallory", code=1, secret=mallory)
    assert trust.is_file()


def test_what_was_changed_after_it_was_signed_is_signed_anew(ask: Any, trust: Path) -> None:
    ask("new", "next")
    sign(ask, "alva")
    edit('name = "Olga"', 'name = "Mallory"')
    assert "was changed after it was signed" in sign(ask, "bruno", code=1)
    assert "was changed after it was signed" in ask("verify", "next", code=1)
    assert load_trust(trust).version == 1


def test_a_skipped_number_is_refused_before_anybody_signs(ask: Any, trust: Path) -> None:
    ask("new", "next")
    edit("version = 2", "version = 3")
    assert "only 2 follows 1" in sign(ask, "alva", code=1)
    assert trust.is_file()


def test_a_person_whom_the_version_removes_signs_for_the_old_one(ask: Any, trust: Path) -> None:
    ask("new", "next")
    text = Path("next/trust.toml").read_text()
    start = text.index('[[people]]\nid = "chen"')
    edit(text[start : text.index("[[people]]", start + 1)], "")
    for name in ("alva", "chen"):
        assert sign(ask, name)["complete"] is False
    assert sign(ask, "bruno")["complete"] is True
    (step,) = ask("verify", "next")["steps"]
    assert (step["signed_by_old"], step["signed_by_new"]) == (["alva", "bruno", "chen"], ["alva", "bruno"])
    assert trust.is_file()


def test_a_key_on_a_token_signs_in_two_calls(ask: Any, trust: Path) -> None:
    ask("new", "next")
    ask("sign", "next", "--reason", "a token", "--print-statement", "statement", code=0)
    Path("statement.sig").write_bytes(openpgp.sign_detached(Path("statement").read_bytes(), keyring().tsk["alva"]))
    assert ask("sign", "next", "--signature", "statement.sig", "--yes")["signed_by"] == ["alva"]
    assert trust.is_file()
