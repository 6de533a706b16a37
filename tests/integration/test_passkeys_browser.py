"""The page of passkeys in a real Chromium, with its virtual authenticator: enrol, add to the trust policy, sign, load.

The authenticator is Chromium's own software one, which takes the place of a device; nothing else is replaced.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from constitution.checksum import checksum_of
from constitution.trust.passkey import Passkey, RelyingParty
from constitution_client.ceremony import make_trust, passkeys_toml
from constitution_client.main import run
from signatures import detached, dsse
from signatures.trust_files import load_trust
from tests.ports import free_port
from tests.world.environment import serving
from tests.world.files import ENVIRONMENT, EnvironmentFiles
from tests.world.trust import next_version

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]
CHROMIUM = "/usr/bin/chromium"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def environment_files(tmp_path: Path, port: int) -> EnvironmentFiles:
    """A policy that pins the relying party; nobody has a passkey yet."""
    directory = tmp_path / "environment"
    make_trust(
        directory, ENVIRONMENT, relying_party=RelyingParty(id="localhost", origins=(f"http://localhost:{port}",))
    )
    return EnvironmentFiles.configured(directory)


class Browser:
    """One page, and what it said that a person would not see."""

    def __init__(self, page: Any, folder: Path) -> None:
        self.page = page
        self.folder = folder
        self.complaints: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    async def open(self, url: str) -> None:
        answer = await self.page.goto(url)
        assert answer.ok

    async def authenticator(self, *, verifies: bool = True) -> None:
        """Plug in an authenticator; whether it can verify its user."""
        session = await self.page.context.new_cdp_session(self.page)
        await session.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": verifies,
            "automaticPresenceSimulation": True,
        }
        await session.send("WebAuthn.addVirtualAuthenticator", {"options": options})

    async def saved(self, place: str) -> Path:
        """Save what the page offers."""
        async with self.page.expect_download() as download:
            await self.page.click(f"#{place} a")
        found = await download.value
        target = self.folder / str(found.suggested_filename)
        await found.save_as(target)
        return target

    async def said(self, place: str, words: str) -> str:
        """Wait until a place of the page holds these words."""
        found = self.page.locator(f"#{place}", has_text=words)
        await found.wait_for()
        text: str = await found.inner_text()
        return text


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Browser]:
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        # Chromium has no sandbox as root, which the user of a machine of tests may be.
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield Browser(await browser.new_page(accept_downloads=True), folder)
        await browser.close()


async def test_a_passkey_is_enrolled_and_decides(
    environment_files: EnvironmentFiles,
    service_settings: dict[str, str],
    tmp_path: Path,
    port: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = {**service_settings, "PORT": str(port)}
    trust = environment_files.directory / "trust" / "trust.toml"
    async with chromium(tmp_path) as browser:
        await browser.authenticator()
        async with serving(environment_files, settings, tmp_path / "first.log"):
            await browser.open(f"http://localhost:{port}/passkeys")
            await browser.page.fill("#person", "alva")
            await browser.page.click("text=Make a passkey")
            shown = await browser.said("enrolled", "fingerprint")
            enrolment = await browser.saved("enrolled")
        assert enrolment.name == "alva.passkey.json"
        assert run(["trust", "passkey", str(enrolment), "--trust", str(trust), "--json"]) == 0
        made = json.loads(capsys.readouterr().out)
        assert made["fingerprint"] in shown
        assert made["origin"] == f"http://localhost:{port}"
        entry = passkeys_toml([Passkey(credential=made["credential"], public_key=made["public_key"])])
        next_version(environment_files, ('id = "alva"', f'id = "alva"\n{entry}'))

        async with serving(environment_files, settings, tmp_path / "second.log") as environment:
            author = environment.author
            request = await author.prepared(author.draft("1.0.0"), expected_generation=0)
            alva, bruno = request.approvals
            statement = tmp_path / "a decision"
            statement.write_bytes(dsse.pae(alva.payloadType, dsse.decode_base64(alva.payload, "payload")))
            await browser.open(f"http://localhost:{port}/passkeys")
            await browser.page.set_input_files("#statement", statement)
            await browser.said("digest", checksum_of(statement.read_bytes()))
            await browser.said("fields", str(request.checksum))
            await browser.page.click("text=Sign with a passkey")
            await browser.said("signed", "--signature a decision.sig")
            signature = await browser.saved("signed")
            approval, person = detached.envelope_of(
                statement.read_bytes(), signature.read_bytes(), load_trust(trust), datetime.now(UTC)
            )
            assert person.id == "alva"
            lease = await author.lease(request.update_id)
            approved = {"fencing_token": lease.fencing_token, "approvals": (approval, bruno)}
            assert (await author.load(request.model_copy(update=approved))).generation == 1
        assert browser.complaints == []


async def test_the_page_says_what_it_refuses(
    environment_files: EnvironmentFiles, service_settings: dict[str, str], tmp_path: Path, port: int
) -> None:
    settings = {**service_settings, "PORT": str(port)}
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(b"DSSEv1 3 abc 5 {}")
    async with chromium(tmp_path) as browser, serving(environment_files, settings, tmp_path / "service.log"):
        await browser.authenticator(verifies=False)
        await browser.open(f"http://localhost:{port}/passkeys")
        await browser.page.set_input_files("#statement", rubbish)
        await browser.said("signed", "choose the file that --print-statement wrote")
        assert await browser.page.is_hidden("#sign")
        await browser.page.fill("#person", "alva")
        await browser.page.click("text=Make a passkey")
        await browser.said("enrolled", "not allowed")  # the authenticator cannot verify its user
        # Under another name of the same machine the browser refuses: passkeys belong to the pinned domain name.
        await browser.open(f"http://127.0.0.1:{port}/passkeys")
        await browser.page.fill("#person", "alva")
        await browser.page.click("text=Make a passkey")
        await browser.said("enrolled", "domain")
