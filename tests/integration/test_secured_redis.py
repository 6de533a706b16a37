"""Redis with TLS by a company's authority, and a user with few rights."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from adapters.redis_cache import ConstitutionCache
from adapters.redis_client import connect
from constitution.errors import UnavailableError
from constitution.names import Names
from deploy.embedded.stack_directory import StackDirectory
from tests.world.authority import Authority
from tests.world.secured import SecuredRedis, running


async def ping(url: str) -> None:
    client = connect(url)
    try:
        await ConstitutionCache(client, Names("")).ping()
    finally:
        await client.aclose()


@pytest.mark.parametrize("certificate", [False, True])
async def test_a_user_with_a_password_comes_in_by_the_machines_authorities(
    certificate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "authority")
    server = SecuredRedis(StackDirectory(tmp_path / "valkey"), print)
    server.secure(authority)
    server.demands_certificate = certificate
    async with running(server):
        url = server.url(certificate=certificate)
        with pytest.raises(UnavailableError):
            await ping(url)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        await ping(url)
        with pytest.raises(UnavailableError):
            await ping(url.replace("anna:", "bert:"))
        if certificate:
            with pytest.raises(UnavailableError):
                await ping(server.url())
            return
        client = connect(url)
        assert isinstance(client, Redis)
        cache = ConstitutionCache(client, Names(""))
        assert await cache.read("default") is None
        assert await cache.floor("default") is None
        await cache.delete("default")
        for refused in (client.flushall(), client.get("another"), client.config_get()):
            with pytest.raises(Exception, match=r"(?i)permission"):
                await refused
        await client.aclose()
