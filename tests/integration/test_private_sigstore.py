"""The private Sigstore of the embedded stack: people log in, sign, ask and approve by the command line; agents obey."""

import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psutil
import pytest

from constitution_client.ceremony import PEOPLE, make_trust
from constitution_client.main import run
from deploy.embedded.development import email_of, keyless
from deploy.embedded.sigstore.login import identity_token
from deploy.embedded.sigstore.servers import SIGSTORE_NAMES
from deploy.embedded.stack import Stack
from signatures.current import verify_current
from tests.helpers import eventually
from tests.integration.test_cli_service import Constitution, cli
from tests.terminal import Terminal
from tests.world.author import Author
from tests.world.documents import document
from tests.world.environment import ServiceEnvironment
from tests.world.files import CHECKOUT, ENVIRONMENT, EnvironmentFiles
from tests.world.processes import Service

pytestmark = [
    pytest.mark.slow,  # builds Go programs where the cache has none; the recorded bundles are in `make test`
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def sigstore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The five servers."""
    with Stack(tmp_path_factory.mktemp("sigstore") / "stack", SIGSTORE_NAMES, environment={}) as stack:
        yield stack


@pytest.fixture
def environment_files(tmp_path: Path, sigstore: Stack) -> EnvironmentFiles:
    """Everybody may sign with a key, and keylessly."""
    settings, directory = sigstore.settings(), tmp_path / "environment"
    root = Path(settings["SIGSTORE_TRUSTED_ROOT_FILE"]).read_bytes()
    make_trust(directory, ENVIRONMENT, people=keyless(PEOPLE, settings["SIGSTORE_ISSUER_URL"]), sigstore_root=root)
    return EnvironmentFiles.configured(directory)


@pytest.fixture
def engine(service_environment: ServiceEnvironment, tmp_path: Path) -> Iterator[Service]:
    """A policy engine that follows, with the same trust policy."""
    settings = service_environment.consumer_settings("policy-engine-1", POLL_SECONDS="0.2")
    engine = Service("policy_engine", settings, tmp_path / "engine.log").start()
    yield engine
    engine.kill()


@pytest.fixture
def constitution(
    environment_files: EnvironmentFiles, constitution_service: Service, namespace: str, sigstore: Stack
) -> Constitution:
    trust_config = {"SIGSTORE_TRUST_CONFIG_FILE": sigstore.settings()["SIGSTORE_TRUST_CONFIG_FILE"]}
    return cli(environment_files, constitution_service.url, namespace, **trust_config)


def token(settings: Mapping[str, str], person: str, folder: Path) -> Path:
    """A file with somebody's identity token."""
    file = folder / f"{person}.token"
    file.touch(mode=0o600)
    file.write_text(identity_token(settings, person))
    return file


def test_they_listen_on_loopback_alone_and_their_keys_are_their_owners(sigstore: Stack) -> None:
    state = {entry.name: entry for entry in sigstore.status()}
    assert {name: state[name].state for name in SIGSTORE_NAMES} == dict.fromkeys(SIGSTORE_NAMES, "running")
    for entry in state.values():
        listening = [
            one.laddr.ip
            for one in psutil.Process(entry.pid).net_connections("inet")
            if one.status == psutil.CONN_LISTEN
        ]
        assert set(listening) == {"127.0.0.1"}, (entry.name, listening)
    secret = [*(sigstore.directory / "sigstore" / "keys").iterdir(), sigstore.directory / "stack.env"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in secret} == {0o600}
    assert len(secret) > 5


def test_a_restart_keeps_keys_logs_and_addresses(sigstore: Stack, tmp_path: Path) -> None:
    before = Path(sigstore.settings()["SIGSTORE_TRUSTED_ROOT_FILE"]).read_bytes()
    for name in SIGSTORE_NAMES:
        sigstore.restart(name)
    assert Path(sigstore.settings()["SIGSTORE_TRUSTED_ROOT_FILE"]).read_bytes() == before
    (tmp_path / "file").write_text("signed after a restart")
    arguments = ["--identity-token", str(token(sigstore.settings(), "mara", tmp_path)), str(tmp_path / "file")]
    os.environ["SIGSTORE_TRUST_CONFIG_FILE"] = sigstore.settings()["SIGSTORE_TRUST_CONFIG_FILE"]
    try:
        assert run(["sign", "--sigstore", *arguments]) == 0
    finally:
        del os.environ["SIGSTORE_TRUST_CONFIG_FILE"]


async def test_people_sign_ask_and_approve_without_a_key_and_agents_obey(
    constitution: Constitution, environment_files: EnvironmentFiles, author: Author, engine: Service, sigstore: Stack
) -> None:
    folder, settings, update = environment_files.directory, sigstore.settings(), str(uuid4())

    def by(person: str) -> tuple[str | Path, ...]:
        return "--sigstore", "--identity-token", token(settings, person, folder)

    (folder / "v1.json").write_bytes(document("1.0.0"))
    signed = constitution("sign", "v1.json", *by("mara"))
    assert (signed.code, signed.json["identity"]) == (0, email_of("mara")), signed.err
    by_olga = constitution("sign", "v1.json", *by("olga"), "--out", "olga.sigstore.json")
    assert by_olga.code == 0, "a signature is made; whether it counts, the trust policy says"
    refused = constitution("push", "--path", "v1.json", "--signature", "olga.sigstore.json")
    assert (refused.code, "olga is no maintainer" in refused.err) == (1, True), refused.err
    pushed = constitution("push", "--path", "v1.json", "--signature", signed.json["signature"])
    assert pushed.json["signers"] == ["mara"], pushed.err
    checksum = pushed.json["checksum"]
    asked = ("change-request", "--id", "CR-1", "--checksum", checksum, "--reason", "first")
    assert "alva (alva" not in constitution(*asked, *by("olga")).out
    assert constitution(*asked, *by("mara")).code == 0

    bound = ("--checksum", checksum, "--evidence", await author.evidence(document_of(folder), "CR-1", update_id=update))
    approve = ("approve", "CR-1", *bound, "--update-id", update, "--yes", "--print")
    by_mara = constitution(*approve, *by("mara"))
    assert (by_mara.code, "is no member of the board" in by_mara.err) == (1, True), by_mara.err
    approvals: list[str | Path] = []
    for member in ("alva", "bruno"):
        decided = constitution(*approve, *by(member))
        assert decided.code == 0, decided.err
        assert f"Sigstore {email_of(member)} by {settings['SIGSTORE_ISSUER_URL']}" in decided.err
        (folder / f"{member}.json").write_text(decided.out)
        approvals += ["--approval", folder / f"{member}.json"]
    load = ("load", *bound, "--change-request", "CR-1", "--reason", "first", "--update-id", update)
    too_few = constitution(*load, *approvals[:2])
    assert too_few.code == 1, "one of two"
    live = constitution(*load, *approvals)
    assert live.code == 0, live.err
    assert constitution("show", "1").json["approvers"] == ["alva", "bruno"]
    current = await author.current()
    assert current is not None
    verify_current(current, trust=author.files.trust, environment=ENVIRONMENT, ring="default")

    async def obeyed() -> bool:
        return (await engine.policy()).checksum == str(checksum)

    await eventually(obeyed)


def document_of(folder: Path) -> bytes:
    """The document of this story."""
    return (folder / "v1.json").read_bytes()


BROWSER = """\
#!{python}
# Stands in a browser's place: follows the address that it is given, fills in the form, follows the answer.
import sys, urllib.parse, httpx
with httpx.Client(follow_redirects=True, trust_env=False) as client:
    page = client.get(sys.argv[1])
    asked = dict(urllib.parse.parse_qsl(page.url.query.decode()))
    answer = client.post(
        page.url.copy_with(query=None), data={{**asked, "person": "mara", "password": "{password}"}}
    )
    sys.exit(0 if answer.status_code == 200 else 1)
"""


async def test_a_person_logs_in_by_a_browser_or_by_a_code_on_a_terminal(sigstore: Stack, tmp_path: Path) -> None:
    settings = sigstore.settings()
    (tmp_path / "file").write_text("signed on a terminal")
    browser = tmp_path / "browser"
    browser.touch(mode=0o700)
    browser.write_text(BROWSER.format(python=sys.executable, password=settings["SIGSTORE_LOGIN_PASSWORD"]))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(CHECKOUT),
        "SIGSTORE_TRUST_CONFIG_FILE": settings["SIGSTORE_TRUST_CONFIG_FILE"],
    }
    sign = [sys.executable, "-m", "constitution_client", "sign", "--sigstore", str(tmp_path / "file"), "--json"]
    opened = [*sign, "--out", str(tmp_path / "by-browser")]
    async with Terminal(opened, environment | {"BROWSER": str(browser)}, columns=400) as terminal:
        await terminal.until("log in at http://localhost:")
        assert await terminal.end() == 0, terminal.sent
        assert email_of("mara").encode() in terminal.sent

    typed = [*sign, "--out", str(tmp_path / "by-code"), "--no-browser"]
    async with Terminal(typed, environment, columns=400) as terminal:
        await terminal.until("Enter verification code: ")
        address = re.search(rb"http://127\.0\.0\.1:\S+/auth\?\S+", terminal.sent)
        assert address is not None
        asked = dict(httpx.QueryParams(urlsplit(address[0].decode()).query))
        form = {**asked, "person": "mara", "password": settings["SIGSTORE_LOGIN_PASSWORD"]}
        async with httpx.AsyncClient(trust_env=False) as client:
            page = await client.post(f"{settings['SIGSTORE_ISSUER_URL']}/auth", data=form)
        terminal.type(page.text.partition("<code>")[2].partition("</code>")[0] + "\n")
        assert await terminal.end() == 0, terminal.sent
    for name in ("by-browser", "by-code"):
        assert "messageSignature" in json.loads((tmp_path / name).read_bytes())


def test_without_anybody_to_log_in_it_says_how(
    sigstore: Stack, tmp_path: Path, constitution_alone: Constitution
) -> None:
    (tmp_path / "file").write_text("unsigned")
    refused = constitution_alone("sign", "--sigstore", tmp_path / "file")
    assert (refused.code, "--identity-token FILE" in refused.err) == (2, True), refused.err
    forged = tmp_path / "forged.token"
    forged.touch(mode=0o600)
    forged.write_text("not a token")
    refused = constitution_alone("sign", "--sigstore", tmp_path / "file", "--identity-token", forged)
    assert (refused.code, "Sigstore refuses" in refused.err) == (1, True), refused.err
    genuine = token(sigstore.settings(), "mara", tmp_path)
    genuine.chmod(0o644)
    refused = constitution_alone("sign", "--sigstore", tmp_path / "file", "--identity-token", genuine)
    assert refused.code == 1, "others may read it"
    genuine.chmod(0o600)
    head, body, signature = genuine.read_text().split(".")
    genuine.write_text(f"{head}.{body}.{signature[:-4]}AAAA")
    refused = constitution_alone("sign", "--sigstore", tmp_path / "file", "--identity-token", genuine)
    assert (refused.code, "Sigstore refuses" in refused.err) == (1, True), refused.err
    assert not list(tmp_path.glob("file.*"))


@pytest.fixture
def constitution_alone(environment_files: EnvironmentFiles, sigstore: Stack) -> Constitution:
    """The command line without a service."""
    trust_config = {"SIGSTORE_TRUST_CONFIG_FILE": sigstore.settings()["SIGSTORE_TRUST_CONFIG_FILE"]}
    return cli(environment_files, "http://127.0.0.1:9", "", **trust_config)
