"""How the command line has a statement signed: with a key file, or elsewhere in two calls."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from constitution.errors import InvalidRequestError, UntrustedError
from constitution.trust.approval import BoardDecision
from constitution.trust.trust_policy import Person, SigstoreIdentity, SigstoreRoot
from constitution_client.files import FileRefusedError
from constitution_client.keyless import KeylessOptions
from constitution_client.settings import UsageError
from constitution_client.signing import Signing, SigningOptions
from signatures import dsse
from signatures.openpgp import fingerprint_of_key, sign_detached
from signatures.statements import IN_TOTO, approval_bytes, verify_approval
from tests.keyless import ISSUER, KeylessAuthority
from tests.unit.keyring import keyring
from tests.unit.openpgp_stubs import stub_on_token
from tests.unit.test_statements import approval

TRUST = keyring().trust
PAYLOAD = approval_bytes(approval())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def key_file(data: bytes) -> Path:
    path = Path("key")
    path.touch(mode=0o600)
    path.write_bytes(data)
    return path


def signed(person: str = "alva", data: bytes = dsse.pae(IN_TOTO, PAYLOAD), name: str = "statement.sig") -> Path:
    Path("statement").write_bytes(data)
    Path(name).write_bytes(sign_detached(data, keyring().tsk[person]))
    return Path(name)


def elsewhere(signature: Path, statement: Path | None = None) -> Signing:
    return Signing.begin(SigningOptions(key=None, signature=signature, statement=statement), TRUST, "board")


def test_a_key_file_signs_here() -> None:
    signing = Signing.begin(SigningOptions(key=key_file(keyring().tsk["alva"])), TRUST, "board")
    envelope = signing.envelope(PAYLOAD, IN_TOTO, None)
    assert envelope is not None
    assert verify_approval(envelope, TRUST, datetime.now(UTC)) == ("alva", approval())
    assert signing.asks("approval") == "Sign this approval?"


@pytest.mark.parametrize("with_key", [False, True])
def test_a_statement_is_written_and_nothing_else_happens(with_key: bool, capsys: pytest.CaptureFixture[str]) -> None:
    ring = keyring()
    stub = key_file(stub_on_token(ring.tsk["alva"], ring.files["certificates/alva.asc"])) if with_key else None
    options = SigningOptions(key=stub, print_statement=Path("a file"))
    signing = Signing.begin(options, TRUST, "board")
    assert signing.asks("approval") is None
    assert signing.envelope(PAYLOAD, IN_TOTO, True, workflow_id="w") is None
    assert Path("a file").read_bytes() == dsse.pae(IN_TOTO, PAYLOAD)
    said = json.loads(capsys.readouterr().out)
    user = f"--local-user {fingerprint_of_key(ring.tsk['alva'])} " if with_key else ""
    assert (said["workflow_id"], said["sign"]) == ("w", f"gpg {user}--detach-sign 'a file'")
    with pytest.raises(InvalidRequestError, match="not overwritten"):
        signing.envelope(PAYLOAD, IN_TOTO, True)


def test_a_stub_is_named_before_anything_is_fetched() -> None:
    ring = keyring()
    stub = key_file(stub_on_token(ring.tsk["alva"], ring.files["certificates/alva.asc"]))
    with pytest.raises(UntrustedError, match="on a token") as refused:
        Signing.begin(SigningOptions(key=stub), TRUST, "board")
    assert "--print-statement" in refused.value.hint


@pytest.mark.parametrize("ending", [".sig", ".asc", ".gpg"])
def test_what_was_signed_elsewhere_is_the_envelope(ending: str) -> None:
    signing = elsewhere(signed(name=f"statement{ending}"))
    assert signing.person is not None
    assert signing.person.id == "alva"
    assert signing.stated(lambda envelope: verify_approval(envelope, TRUST, datetime.now(UTC))) == approval()
    signing.check(PAYLOAD, IN_TOTO)
    envelope = signing.envelope(PAYLOAD, IN_TOTO, None)
    assert envelope is not None
    assert verify_approval(envelope, TRUST, datetime.now(UTC)) == ("alva", approval())
    assert signing.asks("approval") == "Send this approval?"


@pytest.mark.parametrize("name", ["statement.sigstore.json", "statement.sig"])
def test_what_another_sigstore_client_signed_is_the_envelope(name: str) -> None:
    authority = KeylessAuthority()
    alva = Person(
        id="alva", name="Alva", roles=("board",), sigstore=(SigstoreIdentity(identity="a@example.org", issuer=ISSUER),)
    )
    pinned = {"sigstore": SigstoreRoot(trusted_root="root.json", sha256="0" * 64)}
    files = {"root.json": authority.trusted_root()}
    policy = TRUST.model_copy(update={"people": (alva,), "files": files, **pinned})
    Path("statement").write_bytes(dsse.pae(IN_TOTO, PAYLOAD))
    Path(name).write_bytes(authority.sign(dsse.pae(IN_TOTO, PAYLOAD), "a@example.org"))
    signing = Signing.begin(SigningOptions(key=None, signature=Path(name)), policy, "board")
    envelope = signing.envelope(PAYLOAD, IN_TOTO, None)
    assert envelope is not None
    assert envelope.signatures[0].keyid == "a@example.org"
    assert verify_approval(envelope, policy, datetime.now(UTC)) == ("alva", approval())
    Path(name).write_bytes(authority.sign(dsse.pae(IN_TOTO, PAYLOAD), "mallory@example.org"))
    with pytest.raises(UntrustedError, match="belongs to nobody"):
        Signing.begin(SigningOptions(key=None, signature=Path(name)), policy, "board")


@pytest.mark.parametrize(
    "elsewhere", [{"print_statement": Path("a file")}, {"signature": Path("a file.sig")}], ids=["print", "signature"]
)
def test_a_keyless_signature_is_made_here_or_not_at_all(elsewhere: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="--sigstore signs here"):
        SigningOptions(key=None, keyless=KeylessOptions(), **elsewhere).check()


def test_a_statement_that_says_something_else_is_refused_with_what_differs() -> None:
    signing = elsewhere(signed())
    for changes, named in (
        ({"decision": BoardDecision.DENY}, "decision"),
        ({"evidence": "sha256:" + "0" * 64, "reason": "another"}, "evidence, reason"),
    ):
        other = approval_bytes(approval(**changes))
        with pytest.raises(UntrustedError, match=f"about something else: {named}$"):
            signing.check(other, IN_TOTO)
        with pytest.raises(UntrustedError, match=f"about something else: {named}$"):
            signing.envelope(other, IN_TOTO, None)
    with pytest.raises(UntrustedError, match="about something else: its kind"):
        signing.check(PAYLOAD, "application/another")


def test_who_may_not_sign_and_files_that_are_none_are_refused() -> None:
    with pytest.raises(UntrustedError, match="no member of the board"):
        elsewhere(signed("mara"))
    signed()
    Path("changed").write_bytes(Path("statement").read_bytes() + b" ")
    with pytest.raises(UntrustedError, match="holds no statement"):
        elsewhere(Path("statement.sig"), Path("changed"))
    with pytest.raises(UsageError, match="does not say which file it signs"):
        elsewhere(Path("statement"))
    with pytest.raises(FileRefusedError):
        elsewhere(Path("absent.sig"))
