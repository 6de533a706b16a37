"""The pinned Sigstore root: until when it was reviewed, what is in it, and what people are told."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from constitution.trust.root_review import overdue_root
from constitution_client.ceremony import ROOT_REVIEW
from constitution_client.main import run
from constitution_client.settings import ClientSettings
from constitution_client.verbs.doctor import _root
from signatures.sigstore_root import entries
from signatures.trust_files import load_trust
from tests.keyless import ISSUER, KeylessAuthority
from tests.unit.test_sigstore import ROOT


@pytest.fixture
def trust_file(tmp_path: Path) -> Path:
    """What init makes where somebody signs keylessly."""
    (tmp_path / "root.json").write_bytes(KeylessAuthority().trusted_root())
    people = ["--maintainer", "nils", "--board", "alva", "--board", "bruno", "--generate"]
    keyless = ["--sigstore", f"nils=nils@example.org,{ISSUER}", "--sigstore-root", str(tmp_path / "root.json")]
    assert run(["init", "--directory", str(tmp_path / "made"), "--environment", "staging", *people, *keyless]) == 0
    return tmp_path / "made" / "trust" / "trust.toml"


def reviewed(file: Path, by: date | None) -> None:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("review_by")]
    at = lines.index("[sigstore]") + 1
    file.write_text("\n".join([*lines[:at], *([f"review_by = {by.isoformat()}"] if by else []), *lines[at:]]))


def test_a_ceremony_says_when_the_root_is_looked_at_again(trust_file: Path) -> None:
    root = load_trust(trust_file).sigstore
    assert root is not None
    assert root.review_by == (datetime.now(UTC) + ROOT_REVIEW).date()


def test_a_root_is_overdue_after_its_day_and_where_it_has_none(trust_file: Path) -> None:
    today = date(2027, 5, 30)
    for by, said in (
        (today, None),
        (today - timedelta(days=1), "was to be reviewed by 2027-05-29"),
        (None, "no review_by"),
    ):
        reviewed(trust_file, by)
        found = overdue_root(load_trust(trust_file), today)
        assert (found is None) is (said is None), found
        assert said is None or said in (found or "")


def test_trust_show_and_doctor_warn_once_the_day_has_passed(
    trust_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for by, overdue in ((datetime.now(UTC).date() + timedelta(days=2), False), (date(2026, 1, 2), True)):
        reviewed(trust_file, by)
        capsys.readouterr()
        assert run(["trust", "show", "--trust", str(trust_file), "--json"]) == 0
        out, err = capsys.readouterr()
        assert (bool(json.loads(out)["warnings"]), "warning: the pinned" in err) == (overdue, overdue)
        findings = _root(ClientSettings(trust_file=trust_file))
        assert [one.code for one in findings] == (["root-review"] if overdue else [])


def test_trust_show_names_people_and_what_of_the_root_is_in_force(
    trust_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["trust", "show", "--trust", str(trust_file), "--text"]) == 0
    shown = capsys.readouterr().out
    assert f"Sigstore   nils@example.org by {ISSUER}" in shown
    assert "certificate log   https://ctlog.example.org: in force" in shown
    assert "document 1, approval 2" in shown


def test_of_the_public_root_some_entries_are_retired() -> None:
    now = datetime(2026, 11, 30, tzinfo=UTC)
    listed = entries(ROOT)
    retired = [one for one in listed if not one.in_force(now)]
    assert {one.part for one in listed} == {"tlogs", "ctlogs", "certificateAuthorities", "timestampAuthorities"}
    assert retired
    assert all("NOT in force" in one.describe(now) for one in retired)
