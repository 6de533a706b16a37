"""What downloads servers trusts the machine's authorities, as a company's private one is installed there."""

import asyncio
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import requests

from deploy.embedded.authorities import SETTINGS, machine_trusted
from deploy.embedded.slack import _node
from tests.unit.test_outgoing_calls import authority, listener  # noqa: F401 - a fixture

FETCH = (
    "fetch(process.argv[1]).then(() => process.exit(0), error => { console.log(error.cause.code); process.exit(1) })"
)


@pytest.fixture(autouse=True)
def _no_settings_of_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SETTINGS, "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


async def _by_requests(port: int) -> None:
    await asyncio.to_thread(requests.get, f"https://127.0.0.1:{port}/", timeout=10)


async def _by_node(port: int) -> None:
    command = [str(_node()), "-e", FETCH, f"https://127.0.0.1:{port}/"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(done.stdout)


@pytest.mark.parametrize("download", [_by_requests, _by_node])
async def test_downloads_trust_the_machines_authorities_and_no_others(
    download: Callable[[int], Awaitable[None]],
    authority: tuple[Path, ssl.SSLContext],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trusted, context = authority
    async with listener(context) as (port, _):
        with machine_trusted(), pytest.raises(OSError, match=r"(?i)cert|leaf"):
            await download(port)
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        with pytest.raises(OSError, match=r"(?i)cert|leaf"):
            await download(port)
        with machine_trusted():
            await download(port)
