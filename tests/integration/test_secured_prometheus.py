"""Prometheus with TLS, a client's certificate, a password and a path of its own; and a token at the door."""

from pathlib import Path

import pytest

from adapters.prometheus import PrometheusMetrics
from constitution.errors import InvalidRequestError, UnavailableError
from deploy.embedded.stack_directory import StackDirectory
from tests.resources import Prometheus
from tests.world.authority import Authority, Issued
from tests.world.nginx import TokenDoor
from tests.world.secured import SecuredPrometheus, running


async def asked(url: str, client: Issued | None = None, token: Path | None = None) -> int:
    """Return how many series ``vector(1)`` has."""
    own = (client.certificate, client.key) if client else (None, None)
    metrics = PrometheusMetrics(url, token_file=token, certificate=own[0], certificate_key=own[1])
    try:
        return len(await metrics.instant("vector(1)"))
    finally:
        metrics.close()


async def test_certificate_password_and_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "authority")
    server = SecuredPrometheus(StackDirectory(tmp_path / "prometheus"), print)
    server.secure(authority)
    client = authority.issue("client")
    async with running(server):
        url = f"{server.root().replace('//', f'//anna:{server.PASSWORD}@')}{server.PATH}"
        with pytest.raises(UnavailableError):  # not of the machine's authorities
            await asked(url, client)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        assert await asked(url, client) == 1
        assert await asked(f"{url}/", client) == 1
        with pytest.raises(UnavailableError):
            await asked(url)
        with pytest.raises(UnavailableError, match="HTTP 401"):
            await asked(url.replace("anna:", "bert:"), client)
        with pytest.raises(UnavailableError, match="HTTP 404"):
            await asked(url.removesuffix(server.PATH), client)
    with pytest.raises(InvalidRequestError, match="PROMETHEUS_CERTIFICATE_FILE"):
        PrometheusMetrics(url, certificate=authority.file, certificate_key=authority.file)


@pytest.mark.slow
async def test_a_token_is_read_anew_for_each_query(prometheus: Prometheus, tmp_path: Path) -> None:
    token, second = tmp_path / "token", "second"
    token.write_text("first\n", encoding="ascii")
    async with TokenDoor(prometheus.url, token=second, folder=tmp_path).running() as address:
        metrics = PrometheusMetrics(f"http://{address}/door", token_file=token)
        try:
            with pytest.raises(UnavailableError, match="HTTP 401"):
                await metrics.instant("vector(1)")
            token.write_text(f"{second}\n", encoding="ascii")
            assert len(await metrics.instant("vector(1)")) == 1
            token.unlink()
            with pytest.raises(UnavailableError, match="PROMETHEUS_TOKEN_FILE"):
                await metrics.instant("vector(1)")
        finally:
            metrics.close()
