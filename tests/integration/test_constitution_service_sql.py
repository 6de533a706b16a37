"""History is append-only in the database itself, for the service's role and for the owner alike."""

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from constitution.receipt import ArchivedFile, ReceiptManifest, ReceiptRequest
from constitution.release import Kind
from tests.helpers import eventually
from tests.resources import Database
from tests.world.author import Author
from tests.world.documents import following
from tests.world.files import CHECKOUT, ENVIRONMENT

APPEND_ONLY = (
    "artifacts",
    "artifact_signatures",
    "change_requests",
    "evidence",
    "releases",
    "standings",
    "cache_deliveries",
    "idempotency_keys",
    "closed_updates",
    "outbox",
    "stored_records",
    "lost_generations",
    "update_states",
    "closed_change_requests",
    "orders",
    "audit_chain",
    "audit_heads",
    "trust_versions",
    "receipts",
)
REFUSED = (asyncpg.InsufficientPrivilegeError, asyncpg.IntegrityConstraintViolationError)


@pytest.fixture
async def history(author: Author, database: Database) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    undone = str(uuid4())
    await author.lease(undone)
    await author.release_lease(await author.lease(undone, Kind.ROLLBACK))
    denied = await author.ask(first.checksum or "")
    await author.deny(denied, first.checksum)
    await author.delivered(2)
    file = ArchivedFile(path="README.md", sha256=first.checksum or "", size=1)
    manifest = ReceiptManifest(environment=ENVIRONMENT, generation=1, files=(file,))
    await author.worker.seal_receipt(1, ReceiptRequest(manifest=manifest))
    owner = await asyncpg.connect(database.owner_url)
    try:
        await eventually(lambda: owner.fetchval("SELECT count(*) = 4 FROM stored_records"))
        await owner.execute("INSERT INTO lost_generations VALUES ('development', 3, 'nothing is left of it')")
    finally:
        await owner.close()


async def refused(url: str, statement: str, *arguments: Any) -> None:
    connection = await asyncpg.connect(url)
    try:
        with pytest.raises(REFUSED):
            await connection.execute(statement, *arguments)
    finally:
        await connection.close()


@pytest.mark.usefixtures("history")
async def test_rows_of_history_can_be_neither_changed_nor_deleted(database: Database) -> None:
    for url in (database.url, database.owner_url):
        for table in APPEND_ONLY:
            await refused(url, f"TRUNCATE {table} CASCADE")
            await refused(url, f"DELETE FROM {table}")  # noqa: S608 - one of the constants above
            await refused(url, f"UPDATE {table} SET environment = 'x'")  # noqa: S608 - the same
    await refused(database.owner_url, "UPDATE outbox SET value = '{}'")
    await refused(database.owner_url, "UPDATE outbox SET delivered_at = NULL")
    await refused(database.url, "UPDATE outbox SET kafka_offset = 7, delivered_at = now()")


@pytest.mark.usefixtures("history")
async def test_generations_have_no_gap_and_pointers_never_go_back(database: Database) -> None:
    copy = """
        INSERT INTO releases SELECT environment, $1::bigint, kind, rings, version, checksum, previous_generation,
            previous_checksum, rollback_of, update_id, gen_random_uuid(), change_request, reason, effective_at,
            approvers, evidence, statement, approvals, signatures, workflow
        FROM releases WHERE generation = 2
    """
    for generation in (1, 2, 3, 5, 0, -1):  # 3 is lost: it is not used either
        await refused(database.url, copy, generation)
    await refused(database.url, "UPDATE current_releases SET generation = 1")
    await refused(database.owner_url, "UPDATE current_releases SET generation = 1")
    await refused(database.url, "DELETE FROM current_releases")


@pytest.mark.usefixtures("history")
async def test_the_reader_reads_and_nothing_else(database: Database) -> None:
    connection = await asyncpg.connect(database.reader_url)
    try:
        assert await connection.fetchval("SELECT max(generation) FROM releases") == 2
        for table in (*APPEND_ONLY, "leases", "relay_leases", "current_releases", "service_processes"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"DELETE FROM {table}")  # noqa: S608 - one of the constants above
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetchval("SELECT nextval('fencing_tokens')")
    finally:
        await connection.close()


async def test_migrations_can_be_run_again_and_by_several_at_once(database: Database) -> None:
    command = [sys.executable, "-m", "services.constitution_service.migrate"]
    environment = {"PATH": os.environ["PATH"], "DATABASE_MIGRATION_URL": database.owner_url}
    runs = [
        await asyncio.create_subprocess_exec(
            *command, env=environment, cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        for _ in range(3)
    ]
    for run in runs:
        output, _ = await run.communicate()
        assert run.returncode == 0, output.decode()


@pytest.mark.parametrize("name", ["a, b", "O'Brien", "50% #1 [x]*"])
async def test_migrations_lie_in_a_folder_of_any_name(database: Database, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(CHECKOUT / "deploy" / "sql" / "migrations", folder)
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_MIGRATION_URL": database.owner_url,
        "MIGRATIONS_DIRECTORY": str(folder),
    }
    run = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "services.constitution_service.migrate"],
        env=environment,
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await run.communicate()
    assert run.returncode == 0, output.decode()
