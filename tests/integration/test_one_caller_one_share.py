"""One caller without a key goes beyond each budget, from outside; the service answers everybody else meanwhile.

``undisturbed`` is the other road: another client asks ``/healthz`` all the time, with a deadline, and the row in
PostgreSQL says whether the relay was elected anew.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from adapters.redis_cache import MAX_VALUE
from constitution.checksum import checksum_of
from constitution.errors import MAX_ISSUES, UnavailableError
from constitution.names import Names
from services.common.answers import HELD
from services.common.deadlines import TAKE_TIMEOUT
from tests.helpers import eventually
from tests.machine import pace, patience
from tests.resources import Database
from tests.world.author import Author
from tests.world.processes import Service

PATIENCE = timedelta(seconds=3)  # for an answer of /healthz on a machine like ours; as a probe of an orchestrator has
STARVED = 2.0
"""So much slower than usual, a machine may keep the processor from the relay for as long as its lease lasts."""
CROWD = 700  # more than the 512 threads of obstore's runtime
UNKNOWN = "{" + ",".join(f'"k{n:06d}":0' for n in range(4 * 1024 * 1024 // 12)) + "}"


@asynccontextmanager
async def undisturbed(service: Service, database: Database) -> AsyncIterator[None]:
    """The block delays no answer of ``/healthz`` beyond ``PATIENCE``, and costs the relay no election.

    Where other work keeps the machine busy, an answer has more time, and the relay must be elected in the end.
    """
    connection = await asyncpg.connect(database.url)
    late: list[str] = []
    done = threading.Event()

    async def epoch() -> int | None:
        found: int | None = await connection.fetchval("SELECT epoch FROM relay_leases WHERE expires_at > now()")
        assert found is not None
        return found

    def look() -> None:  # in a thread of its own: the callers keep the test's event loop busy
        with httpx.Client(base_url=service.url, timeout=patience(PATIENCE).total_seconds()) as http:
            while not done.wait(0.05):
                try:
                    assert http.get("/healthz", headers={"Connection": "close"}).status_code == 200
                except httpx.TransportError as error:
                    late.append(repr(error))

    try:
        before = await eventually(epoch)
        looking = asyncio.create_task(asyncio.to_thread(look))
        try:
            yield
        finally:
            done.set()
            await looking
        assert not late
        after = await eventually(epoch)
        assert after == before or pace() > STARVED
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 413),
        ("multipart/form-data", 422),
        # A route that takes no file treats every other media type as this one.
        ("application/octet-stream", 413),
        pytest.param("text/plain", 413, marks=pytest.mark.slow),
    ],
)
async def test_megabytes_of_unknown_keys_are_refused_whatever_their_media_type(
    constitution_service: Service, database: Database, media_type: str, status: int
) -> None:
    headers = {"Content-Type": media_type}
    async with undisturbed(constitution_service, database), httpx.AsyncClient(timeout=60) as http:
        url = f"{constitution_service.url}/v1/constitution/validate"
        answers = await asyncio.gather(*(http.post(url, content=UNKNOWN, headers=headers) for _ in range(6)))
    assert {answer.status_code for answer in answers} <= {status, 503}
    assert status in {answer.status_code for answer in answers}
    assert max(len(answer.content) for answer in answers) < 4096


async def test_a_document_of_a_megabyte_of_problems_is_answered_with_a_hundred(
    constitution_service: Service, database: Database
) -> None:
    document = b'{"rules":[' + b"{}," * 340_000 + b"{}]}"
    async with undisturbed(constitution_service, database), httpx.AsyncClient(timeout=60) as http:
        url = f"{constitution_service.url}/v1/constitution/validate"
        answer = await http.post(url, files={"document": document})
    assert not answer.json()["valid"]
    assert len(answer.json()["issues"]) <= MAX_ISSUES + 2  # and the missing signature
    assert len(answer.content) < 64 * 1024


async def test_head_and_a_slash_at_the_end(author: Author) -> None:
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    got, head = await author.http.get("/v1/constitution"), await author.http.head("/v1/constitution")
    assert (head.status_code, head.headers["etag"], head.content) == (200, got.headers["etag"], b"")
    assert int(head.headers["content-length"]) == len(got.content)
    assert (await author.http.get("/v1/constitution/")).status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["a pipe", "a link to a pipe", "a device"])
async def test_what_is_no_regular_file_in_the_store_costs_no_thread(
    author: Author,
    constitution_service: Service,
    database: Database,
    service_settings: dict[str, str],
    damage: str,
) -> None:
    document = author.draft("1.0.0")
    path = stored(service_settings, await author.push(document))
    replace(path, damage)
    limits = httpx.Limits(max_connections=CROWD)
    async with undisturbed(constitution_service, database):
        async with httpx.AsyncClient(base_url=constitution_service.url, timeout=60, limits=limits) as http:
            url = f"/v1/constitution/artifacts/{checksum_of(document)}"

            async def ask() -> int:
                return (await http.get(url)).status_code

            answers = await asyncio.gather(*(ask() for _ in range(CROWD)))
        assert threads_of(constitution_service) < 100
        following = author.draft("1.0.1")
        assert await author.push(following) == checksum_of(following)
    assert set(answers) <= {200, 503}
    assert 200 in answers
    assert await author.worker.artifact(checksum_of(document)) == document
    assert path.read_bytes() == document  # put right by a read


def threads_of(service: Service) -> int:
    assert service.process is not None
    return len(list(Path(f"/proc/{service.process.pid}/task").iterdir()))


def stored(settings: dict[str, str], checksum: str) -> Path:
    store = Path(settings["ARTIFACT_STORE_URL"].removeprefix("file://"))
    return store / "artifacts" / "sha256" / checksum.removeprefix("sha256:") / "document.json"


def replace(path: Path, damage: str) -> None:
    """Put what would block its reader in place of a stored file."""
    path.unlink()
    if damage == "a pipe":
        os.mkfifo(path)
    elif damage == "a device":
        path.symlink_to("/dev/zero")
    else:
        pipe = path.with_name("pipe")
        os.mkfifo(pipe)
        path.symlink_to(pipe)


@pytest.mark.parametrize(
    "size",
    [*(pytest.param(mebibytes * 1024 * 1024, marks=pytest.mark.slow) for mebibytes in (5, 15)), MAX_VALUE - 1000],
)
@pytest.mark.parametrize("shape", ["keys", "items"])
async def test_a_costly_value_in_redis_delays_no_read(
    *,
    author: Author,
    constitution_service: Service,
    database: Database,
    redis_url: str,
    names: Names,
    size: int,
    shape: str,
) -> None:
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    genuine = await author.worker.current()
    value = costly(size, shape)
    async with undisturbed(constitution_service, database), Redis.from_url(redis_url) as writer:
        for _ in range(5):
            await writer.set(names.redis_current(), value)
            async with asyncio.timeout(patience(PATIENCE).total_seconds()):
                assert await author.worker.current() == genuine


def costly(size: int, shape: str) -> bytes:
    """A value that a JSON reader with a schema takes seconds for."""
    if shape == "items":
        return b'{"signatures":[' + b"1," * ((size - 20) // 2) + b"1]}"
    return ("{" + ",".join(f'"k{n:07d}":0' for n in range(size // 13)) + "}").encode()


async def test_half_sent_requests_end_and_keep_nobody_out(constitution_service: Service, database: Database) -> None:
    heads = (b"", b"GET /healthz HTTP/1.1\r\nHost: a", b"POST /v1/constitution/validate HTTP/1.1\r\nX: ")
    writers: list[asyncio.StreamWriter] = []

    async def half(head: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", constitution_service.port)
        writers.append(writer)
        writer.write(head)
        return await reader.read()

    async with undisturbed(constitution_service, database):
        async with asyncio.timeout(patience(timedelta(seconds=40)).total_seconds()):
            ended = await asyncio.gather(*(half(head) for head in heads * 200))
        for writer in writers:
            writer.close()
    assert set(ended) == {b""}


@pytest.mark.slow
async def test_answers_that_nobody_takes_fill_no_memory_and_end(
    author: Author, constitution_service: Service, database: Database
) -> None:
    blob = os.urandom(16 * 1024 * 1024)
    digest = await author.assessor.put_blob(blob)
    before = peak(constitution_service)
    ask = f"GET /v1/constitution/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    callers: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def take_the_first_line_only() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", constitution_service.port, limit=1024)
        callers.append((reader, writer))
        writer.write(ask)
        return await reader.readline()

    async with undisturbed(constitution_service, database):
        lines = await asyncio.gather(*(take_the_first_line_only() for _ in range(60)))
        assert {line.split()[1] for line in lines} == {b"200", b"503"}
        assert await author.push(author.draft("1.0.0"))

        async def taken() -> bool:
            try:
                return await author.worker.blob(digest) == blob
            except UnavailableError:
                return False

        assert await eventually(taken, timedelta(seconds=2 * TAKE_TIMEOUT.total_seconds()))  # those were cut off
    assert peak(constitution_service) - before < 3 * HELD
    for _, writer in callers:
        writer.close()


def peak(service: Service) -> int:
    """The most memory that a process ever had, in bytes."""
    assert service.process is not None
    lines = Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
