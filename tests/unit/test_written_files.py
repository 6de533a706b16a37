"""TOML and paths that people write: whatever stands in them, every reader answers with a line of words, and soon."""

import json
import os
import re
import tempfile
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from activities.golden import golden_requests
from adapters.environment_config import EnvironmentConfig, load_environment_config
from adapters.worker_config import load_worker_config
from constitution import toml
from constitution.environment import Environment
from constitution.errors import ConstitutionError, InvalidRequestError
from constitution.policy.draft import fill
from constitution.trust.trust_policy import TrustPolicy
from constitution_client.context import use_env_file
from constitution_client.main import run
from signatures.trust_files import load_trust
from tests.unit.keyring import NOW, keyring

ENVIRONMENT = 'environment = "development"\ngate = "gate"\n'
READERS: dict[str, Callable[[str], object]] = {
    "trust": lambda text: TrustPolicy.parse(text, {}),
    "environment": Environment.parse,
    "cases": lambda text: toml.read(text, what="cases.toml"),
}
HOSTILE = {
    "a dotted key": ("a." * 60_000 + "a = 1", "a key of more than 16 parts"),
    "a dotted key with spaces": ("a . " * 30_000 + "a = 1", "a key of more than 16 parts"),
    "a dotted key in quotes": ('"a".' * 30_000 + "a = 1", "a key of more than 16 parts"),
    "a dotted table": ("[" + "a." * 60_000 + "a]", "a key of more than 16 parts"),
    "a dotted key in a table": ("a = {" + "a." * 60_000 + "a = 1}", "a key of more than 16 parts"),
    "arrays in arrays": ("a = " + "[" * 100_000, "nested 100000 deep"),
    "tables in tables": ("a = " + "{a=" * 60_000, "nested 60000 deep"),
    "an integer of 5,000 digits": ("a = " + "9" * 5000, "a number of thousands of digits"),
    "an integer of 200 hex digits": ("a = 0x" + "f" * 200, "an integer beyond 64 bits"),
    "an integer just too large": ("a = 9223372036854775808", "an integer beyond 64 bits"),
    "an integer just too small": ("a = -9223372036854775809", "an integer beyond 64 bits"),
    "infinity": ("a = [{b = inf}]", "a number that is not finite"),
    "no number": ("a = nan", "a number that is not finite"),
    "a float beyond all": ("a = 1e999", "a number that is not finite"),
    "a large file": ("# " + "a" * 300_000, "has 300002 characters"),
    "a text that does not end": ('a = """' + "\\" * 100_001, "is not TOML"),
    "quotes": ('"' * 100_000, "is not TOML"),
    "a long key twice": ("b" * 9000 + ' = "' + "c" * 9000 + '"\n' + "b" * 9000 + " = 1", "is not TOML"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", HOSTILE)
def test_every_reader_refuses_hostile_toml_in_one_line(name: str, reader: str) -> None:
    text, said = HOSTILE[name]
    with pytest.raises(InvalidRequestError) as refused:
        READERS[reader](text)
    assert said in refused.value.message
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 400


def test_dots_and_brackets_in_texts_and_comments_are_no_keys() -> None:
    text = (
        "# "
        + "a." * 99
        + "\nx = '"
        + "b." * 99
        + '\'\ny = """\n'
        + "c." * 99
        + "[" * 99
        + '\n"""\nz = "'
        + "d." * 99
        + '"'
    )
    assert set(toml.read(text, what="f")) == {"x", "y", "z"}


@pytest.mark.parametrize(
    "wrong", ["openpgp = 5", "openpgp = true", 'openpgp = "x"', "openpgp = [5]", "openpgp = [{ certificate = 5 }]"]
)
def test_keys_of_another_type_are_refused_by_name(wrong: str) -> None:
    ring = keyring()
    line = next(line for line in ring.toml.splitlines() if line.startswith("openpgp"))
    with pytest.raises(InvalidRequestError) as refused:
        TrustPolicy.parse(ring.toml.replace(line, wrong, 1), ring.files)
    assert "/people/0/openpgp" in refused.value.diagnostics()


@pytest.mark.parametrize("value", ["true", "1.0", '"1"', "2026-01-01"])
def test_a_threshold_of_another_type_is_refused(value: str) -> None:
    ring = keyring()
    text = ring.toml.replace("\nversion = 1\n", f"\nversion = 1\n[thresholds]\ndocument = {value}\n", 1)
    with pytest.raises(InvalidRequestError) as refused:
        TrustPolicy.parse(text, ring.files)
    assert "/thresholds/document" in refused.value.diagnostics()


def test_a_fingerprint_is_read_in_either_case() -> None:
    ring = keyring()
    text = ring.toml
    for person in ring.trust.people:
        for key in person.openpgp:
            text = text.replace(key.fingerprint, key.fingerprint.upper())
    assert text != ring.toml
    assert TrustPolicy.parse(text, ring.files).people == ring.trust.people


def test_one_key_in_two_cases_is_one_key() -> None:
    ring = keyring()
    alva, bruno = (ring.trust.person(person) for person in ("alva", "bruno"))
    assert alva
    assert bruno
    text = ring.toml.replace(bruno.openpgp[0].fingerprint, alva.openpgp[0].fingerprint.upper())
    with pytest.raises(InvalidRequestError) as refused:
        TrustPolicy.parse(text, ring.files)
    assert "is the key of person alva too" in refused.value.diagnostics()


def _loop(folder: Path) -> str:
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    return "one/alva.asc"


NAMES: dict[str, Callable[[Path], str]] = {
    "a name of 300 characters": lambda _: "a" * 300,
    "a loop of links": _loop,
    "a name with a NUL": lambda _: "a\\u0000b",
    "a file as a folder": lambda _: "trust.toml/alva.asc",
}


def _written(folder: Path, certificate: str) -> Path:
    ring = keyring()
    folder.mkdir(exist_ok=True)
    (folder / "certificates").mkdir(exist_ok=True)
    for name, data in ring.files.items():
        (folder / name).write_bytes(data)
    (folder / "trust.toml").write_text(ring.toml.replace("certificates/alva.asc", certificate))
    return folder / "trust.toml"


@pytest.mark.parametrize("name", NAMES)
def test_a_certificate_that_cannot_be_opened_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "trust").mkdir()
    trust = _written(tmp_path / "trust", NAMES[name](tmp_path / "trust"))
    with pytest.raises(InvalidRequestError) as refused:
        load_trust(trust)
    assert "\n" not in refused.value.message
    document = tmp_path / "d.json"
    document.write_text("{}")
    assert (
        run(["verify-signature", "--document", str(document), "--signature", str(document), "--trust", str(trust)]) == 1
    )


def test_a_folder_that_is_closed_to_us_is_named() -> None:
    with tempfile.TemporaryDirectory() as scratch:  # not tmp_path: others cannot reach it
        folder = Path(scratch)
        folder.chmod(0o755)
        trust = _written(folder / "trust", "closed/alva.asc")
        for path in (folder / "trust").rglob("*"):  # whatever the umask
            path.chmod(0o755 if path.is_dir() else 0o644)
        trust.parent.chmod(0o755)
        (folder / "trust" / "closed").mkdir(mode=0o000)
        me = os.geteuid()
        if me == 0:
            os.seteuid(65534)  # root reads every folder
        try:
            with pytest.raises(InvalidRequestError, match="closed"):
                load_trust(trust)
        finally:
            os.seteuid(me)


PATHS = {
    "300 characters": "a" * 300,
    "a NUL": "a\\u0000b",
    "nothing": "",
    "a folder": ".",
    "a file in a file": "environment.toml/x",
}


@pytest.mark.parametrize("value", PATHS)
@pytest.mark.parametrize("field", ["trust", "gate"])
def test_a_path_of_the_environment_that_leads_nowhere_is_refused(field: str, value: str, tmp_path: Path) -> None:
    _written(tmp_path / "trust", "certificates/alva.asc")
    for suite in ("policy", "chaos"):
        (tmp_path / "gate" / suite).mkdir(parents=True)
    file = tmp_path / "environment.toml"
    paths = {"trust": "trust/trust.toml", "gate": "gate"} | {field: PATHS[value]}
    file.write_text('environment = "development"\n' + "".join(f'{name} = "{path}"\n' for name, path in paths.items()))
    with pytest.raises(ConstitutionError):
        load_worker_config(file, scratch=tmp_path / "scratch", links={})
    if field == "trust":
        with pytest.raises(ConstitutionError):
            load_environment_config(file)


def test_every_problem_of_an_environment_is_listed_at_once(tmp_path: Path) -> None:
    _written(tmp_path / "trust", "certificates/alva.asc")
    file = tmp_path / "environment.toml"
    file.write_text('environment = "elsewhere"\ngate = "gate"\n')
    (tmp_path / "scratch").touch()
    with pytest.raises(InvalidRequestError) as refused:
        load_environment_config(file)
    assert [issue.code for issue in refused.value.issues] == ["other-environment"]
    with pytest.raises(InvalidRequestError) as refused:
        load_worker_config(file, scratch=tmp_path / "scratch", links={})
    assert [issue.code for issue in refused.value.issues] == ["other-environment", "no-gate", "no-gate", "no-scratch"]


@pytest.mark.parametrize("load", [load_environment_config, partial(load_worker_config, scratch=Path("/"), links={})])
def test_every_problem_of_a_trust_policy_is_listed_beside_the_others(
    load: Callable[[Path], EnvironmentConfig], tmp_path: Path
) -> None:
    trust = _written(tmp_path / "trust", "certificates/alva.asc")
    thresholds = "[thresholds]\napproval = 99\ndocument = 99\n"
    trust.write_text(trust.read_text().replace("\nversion = 1\n", f"\nversion = 1\n{thresholds}", 1))
    for suite in ("policy", "chaos"):
        (tmp_path / "gate" / suite).mkdir(parents=True)
    file = tmp_path / "environment.toml"
    file.write_text('environment = "development"\ngate = "gate"\n')
    with pytest.raises(InvalidRequestError, match=re.escape(str(file))) as refused:
        load(file)
    assert [issue.path for issue in refused.value.issues] == ["/thresholds/document", "/thresholds/approval"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"case = 5", "cannot be read"),
        (b"case = [5]", "cannot be read"),
        (b"case = [{ request = 5 }]", "cannot be read"),
        (b"a." * 9000 + b"a = 1", "a key of more than 16 parts"),
        (b"a = " + b"9" * 5000, "thousands of digits"),
        (b"\xff", "cannot be read"),
    ],
)
def test_cases_that_cannot_be_read_are_refused_by_file(content: bytes, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "policy" / "cases"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_bytes(content)
    with pytest.raises(ConstitutionError, match=r"mine\.toml") as refused:
        golden_requests(tmp_path)
    assert said in refused.value.message


@pytest.mark.parametrize("option", ["--trust", "--document", "--signature", "--env-file"])
@pytest.mark.parametrize("path", ["a" * 300, "loop", "folder", "latin-1"])
def test_a_path_on_the_command_line_that_cannot_be_read_is_said(
    option: str, path: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ring = _written(tmp_path / "trust", "certificates/alva.asc")
    (tmp_path / "d.json").write_text("{}")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin-1").write_bytes("schlüssel = 1\n".encode("latin-1"))
    given = {"--document": tmp_path / "d.json", "--signature": tmp_path / "d.json", "--trust": ring}
    before = ["--env-file", str(tmp_path / path)] if option == "--env-file" else []
    chosen = given if before else given | {option: tmp_path / path}
    try:
        code = run([*before, "verify-signature", *(str(one) for pair in chosen.items() for one in pair)])
    finally:
        use_env_file(None)
    shown = capfd.readouterr()
    assert code in (1, 2)
    assert "Traceback" not in shown.err


DRAFT = json.loads(
    fill(
        "tool-use",
        version="1.0.0",
        environment="development",
        issued_at=NOW,
        expires_at=NOW + timedelta(days=30),
        previous=None,
    )
)


def _dated(field: str, moment: str) -> bytes:
    return json.dumps({**DRAFT, field: moment}).encode()


DOCUMENTS = {
    "a title in Latin-1": json.dumps({**DRAFT, "title": "Café"}, ensure_ascii=False).encode("latin-1"),
    "UTF-16": json.dumps(DRAFT).encode("utf-16"),
    "UTF-32": json.dumps(DRAFT).encode("utf-32"),
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(DRAFT).encode(),
    "UTF-7": json.dumps({**DRAFT, "title": "+2AA-"}).encode().replace(b'"title"', b"+ACI-title+ACI-"),
    "half a surrogate pair": json.dumps({**DRAFT, "title": "\ud800"}).encode(),
    "NUL": json.dumps({**DRAFT, "title": "a\0b"}).encode(),
    "nothing": b"",
    **{
        f"{field} {moment}": _dated(field, moment)
        for field in ("issued_at", "effective_at", "expires_at")
        for moment in (
            "9999-12-31T23:59:59-05:00",
            "0001-01-01T00:00:00+05:00",
            "10000-01-01T00:00:00Z",
            "2026-12-31T23:59:60Z",
            "2026-12-31T24:00:01Z",
            "2026-12-01T10:00:00+99:99",
        )
    },
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_that_cannot_be_read_is_refused_in_words(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "d.json"
    path.write_bytes(DOCUMENTS[name])
    out = str(tmp_path / "out.json")
    usual = ["--version", "1.1.0", "--environment", "development", "--out", out]
    for command in (
        ["diff", str(path), "--old", "none"],
        ["diff", str(path), "--old", str(path)],
        ["draft", "--previous", str(path), *usual],
    ):
        assert run(command) in (1, 2), command
    assert "Traceback" not in capfd.readouterr().err


JSON = {
    "arrays in arrays": b"[" * 100_000,
    "an integer of 5,000 digits": b'{"payload": ' + b"9" * 5000 + b"}",
    "Latin-1": "{'é': 1}".encode("latin-1"),
    "NUL": b"\0",
    "one key twice": b'{"a": 1, "a": 2}',
    "no number": b"NaN",
    "a number beyond all": b'{"a": 1e999}',
    "a list": b"[]",
    "a large text": b'{"payload": "' + b"A" * 900_000 + b'"}',
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", JSON)
def test_json_that_cannot_be_used_is_refused_in_words(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUST_FILE", str(_written(tmp_path / "trust", "certificates/alva.asc")))
    path = tmp_path / "mine.json"
    path.write_bytes(JSON[name])
    checksum = "sha256:" + "a" * 64
    load = ["load", "--checksum", checksum, "--change-request", "CR-1", "--evidence", checksum, "--reason", "x"]
    usual = ["--version", "1.1.0", "--environment", "development", "--previous", "none"]
    for command in (
        [*load, "--update-id", "1b4e28ba-2fa1-41d2-883f-0016d3cca427", "--approval", str(path)],
        ["watch", "show", "--file", str(path), "--text"],
        ["watch", "backtest", "--input", str(path)],
        ["draft", "--template", str(path), *usual, "--out", str(tmp_path / "out.json")],
    ):
        assert run(command) in (1, 2), command
    assert "Traceback" not in capfd.readouterr().err
