"""A board member who decides by passkey: `load` counts it, once per person, and the service gives the page."""

import base64
from pathlib import Path

import pytest

from constitution.errors import NotApprovedError, UntrustedError
from constitution.release import Envelope
from constitution_client.main import run
from deploy.embedded.authenticator import PRESENT, RELYING_PARTY, VERIFIED, Authenticator
from signatures import dsse, passkeys
from signatures.current import verify_current
from signatures.openpgp import generate_key
from tests.world.author import Author
from tests.world.files import ENVIRONMENT, EnvironmentFiles


@pytest.fixture
def passkey() -> Authenticator:
    """Alva's, beside her OpenPGP key."""
    return Authenticator()


@pytest.fixture
def environment_files(tmp_path: Path, passkey: Authenticator) -> EnvironmentFiles:
    directory, people = tmp_path / "environment", []
    enrolment = tmp_path / "alva.passkey.json"
    enrolment.write_bytes(passkey.enrol())
    secret = {}
    for person, option in (("mara", "--maintainer"), ("alva", "--board"), ("bruno", "--board"), ("olga", "--operator")):
        secret[person], certificate, _ = generate_key(f"{person.title()} <{person}@example.org>")
        (tmp_path / f"{person}.asc").write_bytes(certificate)
        people += [option, f"{person}={tmp_path / person}.asc"]
    made = ["init", "--directory", str(directory), "--environment", ENVIRONMENT, *people]
    assert run([*made, "--relying-party", RELYING_PARTY, "--passkey", f"alva={enrolment}"]) == 0
    for person, tsk in secret.items():
        (directory / "keys" / f"{person}.tsk").write_bytes(tsk)
    return EnvironmentFiles.configured(directory)


def asserted(envelope: Envelope, passkey: Authenticator, flags: int = PRESENT | VERIFIED) -> Envelope:
    """The statement of an envelope, signed by a passkey and sent by a stranger: nobody has looked at it."""
    statement = dsse.pae(envelope.payloadType, dsse.decode_base64(envelope.payload, "payload"))
    _, form = passkeys.canonical(passkey.sign(statement, flags=flags))
    signature = Envelope.Signature(keyid=passkey.passkey.fingerprint, sig=base64.b64encode(form).decode())
    return envelope.model_copy(update={"signatures": (signature,)})


async def test_load_counts_a_decision_by_passkey_and_consumers_obey_it(author: Author, passkey: Authenticator) -> None:
    request = await author.prepared(author.draft("1.0.0"), expected_generation=0)
    alva, bruno = request.approvals
    lease = await author.lease(request.update_id)
    request = request.model_copy(update={"fencing_token": lease.fencing_token})
    refused = {
        "whose user was not verified": (asserted(alva, passkey, PRESENT), bruno),
        "of another key": (asserted(alva, Authenticator(credential=passkey.credential)), bruno),
        "of the same person who signed by OpenPGP": (alva, asserted(alva, passkey)),
        "over another approval": (asserted(bruno, passkey).model_copy(update={"payload": alva.payload}), bruno),
    }
    for what, approvals in refused.items():
        with pytest.raises((NotApprovedError, UntrustedError)):
            await author.load(
                request.model_copy(update={"approvals": approvals}), f"load-{what.replace(chr(32), chr(45))}"
            )

    approvals = (asserted(alva, passkey), bruno)
    result = await author.load(request.model_copy(update={"approvals": approvals}))
    current = await author.current()
    assert current is not None
    release = await author.worker.release(1)
    assert release.approvals == approvals
    said = verify_current(current, trust=author.files.trust, environment=ENVIRONMENT, ring="default")
    assert said.generation == result.generation == 1


async def test_the_page_sends_nothing_anywhere_and_is_in_no_frame(author: Author) -> None:
    answers = {path: await author.http.get(f"/passkeys{path}") for path in ("", "/page.js", "/page.css")}
    kinds = [answer.headers["content-type"].partition(";")[0] for answer in answers.values()]
    assert kinds == ["text/html", "text/javascript", "text/css"]
    for answer in answers.values():
        assert answer.status_code == 200
        policy = dict(one.strip().split(" ", 1) for one in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
    page = answers[""].text
    assert f'<meta name="relying-party" content="{RELYING_PARTY}">' in page
    assert "<script>" not in page
