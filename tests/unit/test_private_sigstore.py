"""The private Sigstore without its servers: its keys, what clients are given, and whom its login lets in."""

import json
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet
from sigstore.models import ClientTrustConfig, TrustedRoot

from constitution_client.ceremony import PEOPLE
from deploy.embedded import development
from deploy.embedded.__main__ import keyless_lines
from deploy.embedded.sigstore.codes import CODE_SECONDS, CodeRefusedError, Codes, challenge_of
from deploy.embedded.sigstore.issuer import OUT_OF_BAND, IssuerSettings, Person, create_app
from deploy.embedded.sigstore.material import Material
from deploy.embedded.sigstore.servers import fulcio_config
from deploy.embedded.sigstore.trust_config import signing_config, trust_config, trusted_root
from deploy.embedded.stack_directory import StackDirectory
from signatures.sigstore_root import entries
from signatures.trust_files import load_trust

HERE = "http://127.0.0.1:21000"
URLS = {name: f"{HERE}/{name}" for name in ("fulcio", "ctlog", "rekor", "timestamps", "issuer")}


def test_keys_are_made_once_and_nobody_else_may_read_them(tmp_path: Path) -> None:
    made = Material.made(tmp_path / "keys")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in made.folder.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert stat.S_IMODE(made.folder.stat().st_mode) == 0o700
    before = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    again = Material.made(tmp_path / "keys")
    assert {path.name: path.read_bytes() for path in again.folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["keys"], "nothing half-made is left"


def test_clients_are_given_what_sigstore_python_reads(tmp_path: Path) -> None:
    made = Material.made(tmp_path / "keys")
    root = trusted_root(made, URLS, "rekor.private")
    signing = signing_config(URLS, made.authority.not_valid_before_utc)
    config = ClientTrustConfig.from_json(json.dumps(trust_config(root, signing)))
    assert config.signing_config.get_oidc_url() == URLS["issuer"]
    assert [client.url for client in config.signing_config.get_tsas()] == [URLS["timestamps"]]
    assert isinstance(config.trusted_root, TrustedRoot)
    assert config.trusted_root.get_fulcio_certs() == [made.authority]
    listed = entries(json.dumps(root).encode())
    assert {one.part for one in listed if one.in_force(datetime.now(UTC))} == {one.part for one in listed}
    assert len(listed) == 4


def test_a_stack_with_a_private_sigstore_lets_everybody_sign_both_ways(tmp_path: Path) -> None:
    directory = StackDirectory(tmp_path)
    made = Material.made(tmp_path / "keys")
    file = tmp_path / "root.json"
    file.write_text(json.dumps(trusted_root(made, URLS, "rekor.private")))
    directory.settings |= {"SIGSTORE_TRUSTED_ROOT_FILE": str(file), "SIGSTORE_ISSUER_URL": URLS["issuer"]}
    development.make(directory, {})
    policy = load_trust(development.environment_directory(directory) / "trust" / "trust.toml")
    assert [person.id for person in policy.people] == [person.id for person in PEOPLE]
    for person in policy.people:
        assert len(person.openpgp) == 1
        assert [(one.identity, one.issuer) for one in person.sigstore] == [
            (f"{person.id}@development.invalid", URLS["issuer"])
        ]
    directory.close()


def test_who_starts_it_is_told_how_to_log_in_or_that_the_trust_policy_knows_nobody(tmp_path: Path) -> None:
    settings = {"SIGSTORE_ISSUER_URL": URLS["issuer"], "TRUST_FILE": str(tmp_path / "trust.toml")}
    assert "log in at" in keyless_lines(settings)[0]
    (tmp_path / "trust.toml").write_text(f'issuer = "{URLS["issuer"]}"')
    assert "SIGSTORE_LOGIN_PASSWORD" in keyless_lines(settings)[0]
    (tmp_path / "trust.toml").write_text('issuer = "https://accounts.example.org"')
    assert "make clean" in keyless_lines(settings)[0]


def test_fulcio_reads_its_configuration_as_yaml() -> None:
    """Were it JSON, Fulcio would look for other names, find none, and know no issuer."""
    written = fulcio_config(URLS["issuer"])
    with pytest.raises(json.JSONDecodeError):
        json.loads(written)
    assert set(json.loads(written.partition("\n")[2])["oidc-issuers"]) == {URLS["issuer"], f"{URLS['issuer']}/ci"}


# --- the login

KEY = ECKey.generate_key("P-256", parameters={"kid": "login"})
VERIFIER = "a" * 43
ASKED = {
    "client_id": "sigstore",
    "response_type": "code",
    "redirect_uri": "http://localhost:4321/auth/callback",
    "code_challenge": challenge_of(VERIFIER),
    "code_challenge_method": "S256",
    "state": "the state",
}
WHO = {"person": "mara", "password": "the password"}


@pytest.fixture
async def login() -> AsyncIterator[httpx.AsyncClient]:
    people = {"mara": Person("mara", "Mara <b>Lindqvist</b>", "mara@example.org")}
    settings = IssuerSettings(url=HERE, key=KEY, people=people, password="the password", ci_secret="the secret")  # noqa: S106 - a test's
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=create_app(settings)), base_url=HERE) as client:
        yield client


async def claims(token: str, login: httpx.AsyncClient, of: str = "") -> dict[str, Any]:
    """What a token says, by the keys that its issuer publishes."""
    discovered = (await login.get(f"{of}/.well-known/openid-configuration")).json()
    keys = KeySet.import_key_set((await login.get(discovered["jwks_uri"])).json())
    said = jwt.decode(token, keys, algorithms=discovered["id_token_signing_alg_values_supported"]).claims
    assert said["iss"] == discovered["issuer"]
    return said


async def code(login: httpx.AsyncClient, **changes: str) -> str:
    answer = await login.post("/auth", data={**ASKED, **WHO, **changes})
    assert answer.status_code == httpx.codes.SEE_OTHER, answer.text
    sent = parse_qs(urlsplit(answer.headers["location"]).query)
    assert sent["state"] == ["the state"]
    return sent["code"][0]


async def redeem(login: httpx.AsyncClient, code: str, **changes: str) -> httpx.Response:
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}
    return await login.post("/token", data={**form, "redirect_uri": ASKED["redirect_uri"], **changes})


async def test_who_knows_the_password_gets_a_token_that_says_who_they_are(login: httpx.AsyncClient) -> None:
    token = (await redeem(login, await code(login))).json()["access_token"]
    said = await claims(token, login)
    assert (said["aud"], said["email"], said["email_verified"]) == ("sigstore", "mara@example.org", True)
    assert said["exp"] - said["iat"] <= 600
    head, body, signature = token.split(".")
    with pytest.raises(JoseError):
        await claims(f"{head}.{body[:-2]}AA.{signature}", login)


@pytest.mark.parametrize("changes", [{"password": "another"}, {"password": ""}, {"person": "olga"}, {"person": ""}])
async def test_nobody_else_gets_a_code(login: httpx.AsyncClient, changes: dict[str, str]) -> None:
    assert (await login.post("/auth", data={**ASKED, **WHO, **changes})).status_code == httpx.codes.FORBIDDEN


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": "https://evil.example.org/auth/callback"},
        {"redirect_uri": "http://localhost.evil.example.org/"},
        {"redirect_uri": "http://localhost:4321/?next=x"},
        {"redirect_uri": ""},
        {"client_id": "another"},
        {"response_type": "token"},
        {"code_challenge_method": "plain"},
        {"code_challenge": "short"},
    ],
)
async def test_a_request_of_another_kind_sends_nobody_anywhere(
    login: httpx.AsyncClient, changes: dict[str, str]
) -> None:
    for answer in (
        await login.get("/auth", params={**ASKED, **changes}),
        await login.post("/auth", data={**ASKED, **WHO, **changes}),
    ):
        assert (answer.status_code, "location" in answer.headers) == (httpx.codes.BAD_REQUEST, False)


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": "b" * 43},
        {"redirect_uri": "http://localhost:4321/other"},
        {"grant_type": "password"},
        {"code": "another"},
    ],
)
async def test_a_code_is_good_for_who_asked_for_it_alone(login: httpx.AsyncClient, changes: dict[str, str]) -> None:
    asked = await code(login)
    assert (await redeem(login, **{"code": asked, **changes})).status_code == httpx.codes.BAD_REQUEST


async def test_a_code_is_good_once(login: httpx.AsyncClient) -> None:
    asked = await code(login)
    assert (await redeem(login, asked)).status_code == httpx.codes.OK
    assert (await redeem(login, asked)).status_code == httpx.codes.BAD_REQUEST
    tried = await code(login)
    assert (await redeem(login, tried, code_verifier="b" * 43)).status_code == httpx.codes.BAD_REQUEST
    assert (await redeem(login, tried)).status_code == httpx.codes.BAD_REQUEST, "a wrong try uses it up"


def test_a_code_ends() -> None:
    now = [0.0]
    codes = Codes(clock=lambda: now[0])
    late, early = (codes.grant("mara", "here", challenge_of(VERIFIER)) for _ in range(2))
    now[0] = CODE_SECONDS - 1
    assert codes.redeem(early, "here", VERIFIER) == "mara"
    now[0] = CODE_SECONDS + 1
    with pytest.raises(CodeRefusedError):
        codes.redeem(late, "here", VERIFIER)


async def test_the_page_names_people_and_shows_nothing_that_it_was_sent(login: httpx.AsyncClient) -> None:
    page = await login.get("/auth", params={**ASKED, "state": '"><script>'})
    assert "Mara &lt;b&gt;Lindqvist&lt;/b&gt;" in page.text
    assert "<script>" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_out_of_band_the_code_is_on_the_page(login: httpx.AsyncClient) -> None:
    page = await login.post("/auth", data={**ASKED, **WHO, "redirect_uri": OUT_OF_BAND})
    shown = page.text.partition("<code>")[2].partition("</code>")[0]
    assert (await redeem(login, shown, redirect_uri=OUT_OF_BAND)).status_code == httpx.codes.OK


async def test_a_ci_job_gets_the_token_of_its_repository_and_ref(login: httpx.AsyncClient) -> None:
    job = {"audience": "sigstore", "repository": "acme/agents", "ref": "refs/heads/main", "workflow": "release.yml"}
    answer = await login.get("/ci/token", params=job, headers={"Authorization": "bearer the secret"})
    said = await claims(answer.json()["value"], login, "/ci")
    assert (said["repository"], said["ref"]) == ("acme/agents", "refs/heads/main")
    assert said["job_workflow_ref"] == "acme/agents/release.yml@refs/heads/main"
    for headers in ({"Authorization": "bearer another"}, {"Authorization": "the secret"}):
        assert (await login.get("/ci/token", params=job, headers=headers)).status_code == httpx.codes.UNAUTHORIZED
    other = {**job, "audience": "another"}
    refused = await login.get("/ci/token", params=other, headers={"Authorization": "bearer the secret"})
    assert refused.status_code == httpx.codes.BAD_REQUEST
