"""PostgreSQL: does it answer, is its schema the newest, and may each role do what it must and no more?"""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg

from adapters.postgres import MIGRATE
from adapters.postgres_password import PasswordFile
from adapters.postgres_session import require_own_server
from adapters.postgres_tls import tls
from constitution.errors import ConstitutionError
from deploy.installation.check import Check, clock, missing, not_set, now, ok, refused
from deploy.installation.settings import InstallationSettings

TIMEOUT = timedelta(seconds=5)  # to connect, and of each query
ROLES = {"DATABASE_URL": "constitution-service", "DATABASE_READER_URL": "the worker"}
GRANTS = "psql --file deploy/sql/roles.sql  # as a superuser: makes the roles; the migrations grant to them"


async def postgres(settings: InstallationSettings) -> AsyncIterator[Check]:
    """Look at the database as each role that the settings name."""
    for name, url in (("DATABASE_URL", settings.database_url), ("DATABASE_READER_URL", settings.database_reader_url)):
        if url is None:
            yield not_set(name, ROLES[name])
            continue
        address = url.get_secret_value()
        try:
            connection = await _connect(address, settings.database_password_file)
        except ConstitutionError as error:
            yield refused(name, "answers", error, f'psql "${name}" --command "SELECT 1"')
            continue
        except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            detail = f"PostgreSQL does not let us in: {type(error).__name__}: {str(error)[:200]}"
            yield missing(name, "answers", detail, f'psql "${name}" --command "SELECT 1"')
            continue
        try:
            async for check in _look(name, connection, address, settings):
                yield check
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            detail = f"PostgreSQL did not answer a question: {type(error).__name__}: {str(error)[:200]}"
            yield missing(name, "answers", detail, f'psql "${name}" --command "SELECT 1"')
        finally:
            connection.terminate()


async def _connect(url: str, password_file: Path | None) -> "asyncpg.Connection[asyncpg.Record]":
    security: dict[str, Any] = {} if (context := tls(url)) is None else {"ssl": context}
    if password_file is not None:
        security["password"] = PasswordFile(password_file)
    seconds = TIMEOUT.total_seconds()
    return await asyncpg.connect(
        url,
        timeout=seconds,
        command_timeout=seconds,
        server_settings={"application_name": "constitution-doctor"},
        **security,
    )


async def _look(
    name: str, connection: "asyncpg.Connection[asyncpg.Record]", url: str, settings: InstallationSettings
) -> AsyncIterator[Check]:
    try:
        await require_own_server(connection, lambda: _connect(url, settings.database_password_file))
    except ConstitutionError as error:
        yield refused(name, "answers", error, "psql")
        return
    yield ok(name, "answers", f"PostgreSQL {await connection.fetchval('SHOW server_version')}")
    asked = now()
    theirs = await connection.fetchval("SELECT clock_timestamp()")
    yield clock(name, theirs, asked, now(), timedelta(0))
    schema = await _schema(name, connection, settings.migrations_directory)
    yield schema
    if await connection.fetchval("SELECT to_regclass('public.releases') IS NOT NULL"):
        yield await _rights(name, connection)


async def _schema(name: str, connection: "asyncpg.Connection[asyncpg.Record]", migrations: Path) -> Check:
    wanted = await asyncio.to_thread(_migrations, migrations)
    newest = max(wanted, default="")
    if not await connection.fetchval("SELECT to_regclass('public.schema_migrations') IS NOT NULL"):
        return missing(name, "schema", "no migration has run in this database", MIGRATE)
    try:
        run = {row["version"] for row in await connection.fetch("SELECT version FROM public.schema_migrations")}
    except asyncpg.InsufficientPrivilegeError:  # the migration that lets every role of ours read it has not run
        return missing(name, "schema", f"older than this release: migration {newest} has not run", MIGRATE)
    if behind := sorted(wanted - run):
        return missing(name, "schema", f"these migrations have not run: {', '.join(behind)}", MIGRATE)
    if ahead := sorted(run - wanted):
        return ok(name, "schema", f"newer than this release, which a release of before may run with: {ahead[-1]}")
    return ok(name, "schema", f"at migration {newest}, the newest of this release")


def _migrations(folder: Path) -> set[str]:
    return {found[0] for file in folder.glob("*.sql") if (found := re.match(r"\d+", file.name))}


async def _rights(name: str, connection: "asyncpg.Connection[asyncpg.Record]") -> Check:
    """What the role may do, as the server lists it: nothing is written to find out."""
    if name == "DATABASE_URL":
        may = await connection.fetchval("SELECT has_table_privilege('releases', 'INSERT')")
        changes = await connection.fetchval("SELECT has_table_privilege('releases', 'UPDATE, DELETE, TRUNCATE')")
        if changes:
            detail = "this role may change a release that exists; constitution-service must not"
            return missing(name, "rights", detail, GRANTS)
        if not may:
            detail = "this role may not insert a release: it is not constitution-service's"
            return missing(name, "rights", detail, GRANTS)
        return ok(name, "rights", "may insert a release, and may change none")
    writable = await connection.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        " AND has_table_privilege(format('%I.%I', schemaname, tablename), 'INSERT, UPDATE, DELETE, TRUNCATE')"
        " ORDER BY 1"
    )
    if writable:
        tables = ", ".join(row["tablename"] for row in writable[:5])
        detail = f"this role may write to {len(writable)} tables ({tables} …): the worker may only read"
        return missing(name, "rights", detail, GRANTS)
    if not await connection.fetchval("SELECT has_table_privilege('releases', 'SELECT')"):
        return missing(name, "rights", "this role may not read the releases", MIGRATE)
    return ok(name, "rights", "may read, and may write nothing")
