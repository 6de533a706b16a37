"""PostgreSQL with TLS by a company's authority and clients' certificates, and behind the real PgBouncer."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from adapters.postgres import Database
from constitution.errors import UnavailableError, UnsupportedServerError
from deploy.embedded.postgres import OWNER, READER, SERVICE
from deploy.embedded.stack_directory import StackDirectory
from tests import resources
from tests.helpers import eventually
from tests.world.authority import Authority
from tests.world.documents import following
from tests.world.environment import serving
from tests.world.files import CHECKOUT, EnvironmentFiles
from tests.world.pgbouncer import PgBouncer
from tests.world.secured import SecuredPostgres, running


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
async def postgres(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecuredPostgres]:
    server = SecuredPostgres(StackDirectory(tmp_path_factory.mktemp("postgres")), print)
    server.secure(authority)
    async with running(server):
        yield server


async def asked(url: str, question: str = "SELECT current_user", password_file: Path | None = None) -> str:
    """Ask one thing through the adapter."""
    database = Database(url, application_name="test", password_file=password_file)
    await database.open()
    try:
        async with database.connection() as connection:
            return str(await connection.fetchval(question))
    finally:
        await database.close()


@pytest.mark.slow
async def test_a_password_is_sent_only_to_a_server_of_the_machines_authorities(
    postgres: SecuredPostgres, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.given(SERVICE)
    with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        await asked(url)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    assert await asked(url) == SERVICE
    assert await asked(url, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == "True"
    with pytest.raises(UnavailableError):
        await asked(url.replace("sslmode=verify-full", "sslmode=disable"))


async def test_a_certificate_takes_the_place_of_a_password(
    postgres: SecuredPostgres, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    reader, other = authority.issue(READER), authority.issue("somebody")
    assert await asked(postgres.given(READER, f"&sslcert={reader.certificate}&sslkey={reader.key}")) == READER
    for refused in ("", f"&sslcert={other.certificate}&sslkey={other.key}"):
        with pytest.raises(UnavailableError):
            await asked(postgres.given(READER, refused))


async def migrated(url: str, **more: str) -> int:
    """Run the migrations as a process; its exit code."""
    environment = {"PATH": os.environ["PATH"], "DATABASE_MIGRATION_URL": url, **more}
    command = [sys.executable, "-m", "services.constitution_service.migrate"]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, cwd=CHECKOUT, capture_output=True, check=False, timeout=100
    )
    return done.returncode


async def test_migrations_trust_the_same_authorities_and_grant_what_each_role_needs(
    postgres: SecuredPostgres, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await migrated(postgres.given(OWNER), SSL_CERT_FILE=str(authority.file)) == 0
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    reader = authority.issue(READER)
    reads = postgres.given(READER, f"&sslcert={reader.certificate}&sslkey={reader.key}")
    for url in (postgres.given(SERVICE), reads):
        assert await asked(url, "SELECT count(*) FROM releases") == "0"
    for url, refused in (
        (reads, "INSERT INTO leases DEFAULT VALUES"),
        (postgres.given(SERVICE), "DELETE FROM releases"),  # append-only
        (postgres.given(SERVICE), "DROP TABLE releases"),
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asked(url, refused)


@pytest.fixture
async def rotating(postgres: SecuredPostgres) -> AsyncIterator[SecuredPostgres]:
    """The server, where a test may change the service's password."""
    yield postgres
    await postgres.set_password(SERVICE, postgres.password(SERVICE))


async def test_a_password_in_a_file_is_read_anew_for_each_new_connection(
    rotating: SecuredPostgres, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    file = tmp_path / "password"
    file.write_text(f"{rotating.password(SERVICE)}\n", encoding="utf-8")
    database = Database(rotating.given_bare(SERVICE), application_name="test", password_file=file)
    await database.open()
    try:
        async with database.connection() as old:
            await rotating.set_password(SERVICE, "second")
            assert await old.fetchval("SELECT 1") == 1  # who is in stays in
            for content, said in (
                ("first", "InvalidPassword"),
                ("", "holds no password"),
                ("a\0b", "holds no password"),
            ):
                file.write_text(content, encoding="utf-8")
                with pytest.raises(UnavailableError, match=said):
                    async with database.connection():
                        pass
            file.unlink()
            with pytest.raises(UnavailableError, match="DATABASE_PASSWORD_FILE cannot be read"):
                async with database.listening("news"):
                    pass
            file.write_text("second", encoding="utf-8")
            async with database.connection() as new, database.listening("news"):
                assert await new.fetchval("SELECT current_user") == SERVICE
    finally:
        await database.close()


async def test_libpqs_own_password_file_is_read_anew_too(
    rotating: SecuredPostgres, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    file = tmp_path / "pgpass"
    url = rotating.given_bare(SERVICE, f"&passfile={file}")
    for password in (rotating.password(SERVICE), "second"):
        await rotating.set_password(SERVICE, password)
        file.write_text(f"127.0.0.1:*:*:{SERVICE}:{password}\n", encoding="utf-8")
        file.chmod(0o600)
        assert await asked(url) == SERVICE


@pytest.mark.slow
async def test_a_service_goes_on_by_the_password_that_its_file_holds_now(
    rotating: SecuredPostgres,
    authority: Authority,
    service_settings: dict[str, str],
    environment_files: EnvironmentFiles,
    *,
    tmp_path: Path,
) -> None:
    file = tmp_path / "password"
    file.write_text(rotating.password(OWNER), encoding="utf-8")
    given = {"DATABASE_PASSWORD_FILE": str(file), "SSL_CERT_FILE": str(authority.file)}
    assert await migrated(rotating.given_bare(OWNER), **given) == 0
    file.write_text("wrong", encoding="utf-8")
    assert await migrated(rotating.given_bare(OWNER), **given) != 0
    file.write_text(rotating.password(SERVICE), encoding="utf-8")
    settings = service_settings | given | {"DATABASE_URL": rotating.given_bare(SERVICE)}
    async with serving(environment_files, settings, tmp_path / "log") as served:
        author = served.author
        first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
        await rotating.set_password(SERVICE, "second")
        await rotating.cut(SERVICE)

        async def said() -> str:
            return (await author.worker.ready()).checks["postgres"]

        async def is_refused() -> bool:
            return "InvalidPassword" in await said()

        async def is_well() -> bool:
            return await said() == "ok"

        await eventually(is_refused)
        file.write_text("second", encoding="utf-8")
        await eventually(is_well)
        await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
        await author.delivered(2)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_a_pooler_of_sessions_serves_and_one_of_transactions_is_refused_in_words(
    mode: str, database: resources.Database, tmp_path: Path
) -> None:
    async with PgBouncer(database.url, mode=mode, folder=tmp_path).running() as url:
        if mode == "transaction":
            with pytest.raises(UnsupportedServerError, match="pool_mode=transaction"):
                await asked(url)
            return
        assert await asked(url) == SERVICE
        pooled = Database(url, application_name="test", connections=2)
        await pooled.open()
        try:
            for _ in range(5):  # given back and lent again: our limits are still in force
                async with pooled.connection() as connection:
                    assert await connection.fetchval("SHOW lock_timeout") == "8s"
                    await connection.execute("SET lock_timeout TO 1")
            async with pooled.listening("news") as listener, pooled.connection() as connection:
                await connection.execute("NOTIFY news")
                await asyncio.wait_for(listener.wait(), 10)
        finally:
            await pooled.close()
