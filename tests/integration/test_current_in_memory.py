"""``GET /v1/constitution`` from memory: what is wrong in it (stale, torn, forged, of a lost database) is never given.

Two processes of the service share one database, as in production: one releases, the other remembers.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis
from temporalio.exceptions import ApplicationError

from activities.publish import ProveInput, Publish
from constitution.api import LoadResult
from constitution.names import Names
from constitution.release import CurrentConstitution
from services.common.server import GRACE_SECONDS
from services.constitution_service.tables.releases import FRESH_FOR
from signatures.current import verify_current
from tests.helpers import eventually
from tests.integration.activity_support import run
from tests.integration.disaster import Disaster
from tests.resources import Database
from tests.world.author import Author
from tests.world.documents import following
from tests.world.environment import serving
from tests.world.files import ENVIRONMENT, EnvironmentFiles
from tests.world.pipe import Pipe, piped
from tests.world.processes import Service

PATH = "/v1/constitution"
FRESH_S = FRESH_FOR.total_seconds()


def generation_of(answer: httpx.Response) -> int:
    assert answer.status_code in {200, 304}, answer.text
    return int(answer.headers["constitution-generation"])


@asynccontextmanager
async def another(
    files: EnvironmentFiles, settings: Mapping[str, str], log: Path, **more: str
) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """Another process of the same service, and a client of it."""
    async with serving(files, {**settings, **more}, log) as environment:
        client = httpx.AsyncClient(base_url=environment.service.url, trust_env=False, timeout=20)
        async with client as http:
            yield environment.service, http


@pytest.fixture
async def second(
    author: Author, service_settings: dict[str, str], tmp_path: Path
) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    async with another(author.files, service_settings, tmp_path / "second.log") as found:
        yield found


@pytest.fixture
async def cuttable(
    author: Author, service_settings: dict[str, str], database_url: str, tmp_path: Path
) -> AsyncIterator[tuple[Pipe, Service, httpx.AsyncClient]]:
    """A second process whose way to PostgreSQL can be cut; it gives what it knows for five seconds."""
    async with piped(database_url) as (pipe, url):
        more = {"DATABASE_URL": url, "MAX_STALENESS_SECONDS": "6"}
        async with another(author.files, service_settings, tmp_path / "cuttable.log", **more) as (service, http):
            yield pipe, service, http


async def test_memory_and_route_give_the_same_answers(author: Author, constitution_service: Service) -> None:
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    slow = {"Cache-Control": "no-cache"}
    whole = [await author.http.get(PATH, headers=headers) for headers in ({}, slow)]
    tag = whole[0].headers["etag"]
    same = [await author.http.get(PATH, headers={"If-None-Match": tag, **headers}) for headers in ({}, slow)]
    weak = [await author.http.get(PATH, headers={"If-None-Match": etag}) for etag in (f"W/{tag}", f'"x", {tag}', "*")]
    other = await author.http.get(PATH, headers={"If-None-Match": '"1-0000000000000000"'})
    heads = [await author.http.head(PATH, headers=headers) for headers in ({}, slow)]

    assert [answer.status_code for answer in (*whole, other)] == [200, 200, 200]
    assert whole[0].content == whole[1].content == other.content
    assert [(answer.status_code, answer.content) for answer in (*same, *weak)] == [(304, b"")] * 5
    assert [(answer.status_code, answer.content) for answer in heads] == [(200, b"")] * 2
    for pair in (whole, same, heads):
        first, second = ({k: v for k, v in answer.headers.items() if k != "date"} for answer in pair)
        assert first == second
    assert whole[0].headers["content-length"] == str(len(whole[0].content)) == heads[0].headers["content-length"]
    assert await constitution_service.metric("constitution_current_reads_total", source="memory") >= 4
    by_route = await constitution_service.metric("http_requests_total", route=PATH, status="200")
    assert by_route >= 5  # those from memory are counted under the route's name


async def test_what_the_route_refuses_memory_does_not_give(author: Author) -> None:
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    for query in ("ring=", "ring=x%20y", "min_generation=-1", "min_generation=1e3", "ring=other"):
        answer = await author.http.get(f"{PATH}?{query}")
        assert answer.status_code == (404 if query == "ring=other" else 422), (query, answer.text)


async def test_a_commit_of_this_process_is_read_at_once(author: Author) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    before = await author.http.get(PATH)
    assert generation_of(before) == 1
    await author.publish(author.draft("1.1.0", following(first)), expected_generation=1)
    assert generation_of(await author.http.get(PATH, headers={"If-None-Match": before.headers["etag"]})) == 2


async def serves(http: httpx.AsyncClient, generation: int) -> bool:
    return generation_of(await http.get(PATH)) == generation


async def proved(publish: Publish, result: LoadResult) -> bool:
    question = ProveInput(
        environment=ENVIRONMENT,
        generation=result.generation,
        checksum=result.checksum,
        event_id=result.event_id,
        rings=("default",),
        effective_at=result.effective_at,
    )
    try:
        return (await run(publish.prove_published, question)).generation == result.generation
    except ApplicationError as error:
        if error.non_retryable:
            raise
        raise AssertionError(str(error)) from error


@pytest.mark.slow
async def test_a_process_that_slept_through_a_release_gives_no_older_one(
    author: Author, second: tuple[Service, httpx.AsyncClient], publish: Publish
) -> None:
    service, http = second
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)

    async def both() -> tuple[str, ...]:
        serving = (await author.worker.release(1)).delivery.served_by
        assert len(serving) == 2
        return serving

    everyone = set(await eventually(both))
    service.send(signal.SIGSTOP)
    try:
        done = await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
        delivery = (await author.delivered(2)).delivery
        asleep = everyone - set(delivery.served_by)
        assert set(delivery.lagging) == asleep
        with pytest.raises(AssertionError, match="may still answer with an older release"):
            await proved(publish, done)
        await eventually(lambda: proved(publish, done))  # asleep so long, it can only wake to the new one
    finally:
        service.send(signal.SIGCONT)
    assert generation_of(await http.get(PATH)) == 2


async def test_after_the_proof_no_process_gives_an_older_release(
    author: Author, second: tuple[Service, httpx.AsyncClient], publish: Publish
) -> None:
    _, http = second
    result = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    for generation in range(2, 7):
        document = author.draft(f"1.{generation}.0", following(result))
        result = await author.confirmed(document, expected_generation=generation - 1)
        await eventually(partial(proved, publish, result))
        answers = await asyncio.gather(*(client.get(PATH) for client in (author.http, http) for _ in range(5)))
        assert {generation_of(answer) for answer in answers} == {generation}


@pytest.mark.slow
async def test_no_answer_is_half_of_two_releases(author: Author, second: tuple[Service, httpx.AsyncClient]) -> None:
    _, http = second
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await eventually(lambda: serves(http, 1))
    done = asyncio.Event()
    seen: list[int] = []

    async def read() -> None:
        newest = 0
        while not done.is_set():
            answer = await http.get(PATH)
            current = CurrentConstitution.model_validate_json(answer.content)
            statement = verify_current(current, trust=author.files.trust, environment=ENVIRONMENT, ring="default")
            assert generation_of(answer) == current.generation == statement.generation
            assert answer.headers["constitution-version"] == current.version
            assert answer.headers["etag"].startswith(f'"{current.generation}-{(current.checksum or "")[7:23]}')
            assert current.generation >= newest
            newest = current.generation
            seen.append(newest)

    readers = [asyncio.create_task(read()) for _ in range(4)]
    for generation in range(1, 5):
        document = author.draft(f"1.{generation}.0", following(first))
        first = await author.confirmed(document, expected_generation=generation)
    await eventually(lambda: serves(http, 5))
    done.set()
    await asyncio.gather(*readers)
    assert set(seen) >= {1, 5}


async def test_without_postgres_the_last_confirmed_answer_is_given_and_its_age(
    author: Author, cuttable: tuple[Pipe, Service, httpx.AsyncClient]
) -> None:
    pipe, _, http = cuttable
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await eventually(lambda: serves(http, 1))
    tag = (await http.get(PATH)).headers["etag"]
    pipe.cut()
    await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)

    async def marked() -> httpx.Response:
        answer = await http.get(PATH)
        assert "age" in answer.headers, answer.headers
        return answer

    answer = await eventually(marked)
    assert generation_of(answer) == 1
    assert answer.headers["warning"] == '111 - "Revalidation Failed"'
    assert int(answer.headers["age"]) >= FRESH_S
    same = await http.get(PATH, headers={"If-None-Match": tag})
    assert (same.status_code, same.headers["warning"]) == (304, '111 - "Revalidation Failed"')
    for sure in ({"params": {"min_generation": 2}}, {"headers": {"Cache-Control": "no-cache"}}):
        assert (await http.get(PATH, **sure)).status_code == 503

    async def over() -> bool:
        answer = await http.get(PATH)
        if answer.status_code != 503:
            assert int(answer.headers["age"]) <= 6
        return answer.status_code == 503

    await eventually(over)
    pipe.repair()

    async def back() -> bool:
        answer = await http.get(PATH)
        assert answer.status_code == 200
        assert "age" not in answer.headers
        return generation_of(answer) == 2

    await eventually(back)


@pytest.mark.slow
async def test_a_postgres_that_falls_silent_delays_readers_by_a_second_at_most(
    author: Author, cuttable: tuple[Pipe, Service, httpx.AsyncClient]
) -> None:
    pipe, _, http = cuttable
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await eventually(lambda: serves(http, 1))
    pipe.silence()
    ages: list[int] = []

    async def said_so() -> bool:
        answer = await asyncio.wait_for(http.get(PATH), 3)
        assert generation_of(answer) == 1
        ages.append(int(answer.headers.get("age", 0)))
        return ages[-1] >= FRESH_S

    await eventually(said_so)
    assert ages == sorted(ages)
    pipe.cut()
    pipe.repair()

    async def back() -> bool:
        return "age" not in (await http.get(PATH)).headers

    await eventually(back)


@pytest.mark.slow
async def test_a_postgres_that_falls_silent_does_not_hold_the_end(
    author: Author, cuttable: tuple[Pipe, Service, httpx.AsyncClient]
) -> None:
    pipe, service, http = cuttable
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await eventually(lambda: serves(http, 1))
    pipe.silence()
    began = time.monotonic()
    assert await asyncio.to_thread(service.stop) == 0
    assert time.monotonic() - began < GRACE_SECONDS


@asynccontextmanager
async def vandal(database: Database, *tables: str) -> AsyncIterator[Any]:
    """Whoever owns the database, and has no key: no trigger stops them."""
    owner = await asyncpg.connect(database.owner_url)
    try:
        async with owner.transaction():
            for table in tables:
                await owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            yield owner
            for table in tables:
                await owner.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
    finally:
        await owner.close()


async def test_a_document_forged_in_postgres_is_not_given(
    author: Author, database: Database, service_settings: dict[str, str], tmp_path: Path
) -> None:
    document = author.draft("1.0.0")
    await author.confirmed(document, expected_generation=0)
    genuine = (await author.http.get(PATH)).content
    async with vandal(database, "artifacts") as owner:
        forged = document.replace(b'"deny"', b'"allow"')
        assert forged != document
        await owner.execute("ALTER TABLE artifacts DROP CONSTRAINT artifacts_check")  # the bytes have the checksum
        await owner.execute("UPDATE artifacts SET document = $1", forged)
    assert (await author.http.get(PATH)).content == genuine  # verified while it was true
    async with another(author.files, service_settings, tmp_path / "later.log") as (later, http):
        answer = await http.get(PATH)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert later.events("current_refused")
        async with vandal(database, "artifacts") as owner:
            await owner.execute("UPDATE artifacts SET document = $1", document)
        assert (await eventually(lambda: ok(http))).content == genuine


async def ok(http: httpx.AsyncClient) -> httpx.Response:
    answer = await http.get(PATH)
    assert answer.status_code == 200, answer.text
    return answer


async def test_a_pointer_set_back_in_postgres_is_not_followed(author: Author, database: Database) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    assert generation_of(await author.http.get(PATH)) == 2
    async with vandal(database, "current_releases") as owner:
        await owner.execute("UPDATE current_releases SET generation = 1")

    async def marked() -> bool:
        answer = await author.http.get(PATH)
        assert generation_of(answer) == 2
        return "warning" in answer.headers

    await eventually(marked)
    assert (await author.http.get(PATH, headers={"Cache-Control": "no-cache"})).status_code == 503
    async with vandal(database, "current_releases") as owner:
        await owner.execute("UPDATE current_releases SET generation = 2")

    async def unmarked() -> bool:
        answer = await author.http.get(PATH)
        return generation_of(answer) == 2 and "warning" not in answer.headers

    await eventually(unmarked)


async def test_a_release_that_nobody_signed_is_not_given(author: Author, database: Database) -> None:
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    assert generation_of(await author.http.get(PATH)) == 1
    async with vandal(database, "releases", "current_releases") as owner:
        await owner.execute("CREATE TEMPORARY TABLE forged AS SELECT * FROM releases")
        await owner.execute(
            "UPDATE forged SET generation = 2, update_id = gen_random_uuid(), event_id = gen_random_uuid()"
        )
        await owner.execute("INSERT INTO releases SELECT * FROM forged")
        await owner.execute("UPDATE current_releases SET generation = 2")
    refused = 0
    async with asyncio.timeout(20):
        while refused < 5:
            answer = await author.http.get(PATH)
            assert generation_of(answer) == 1
            refused += "warning" in answer.headers
            await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_a_process_that_cannot_be_listed_asks_each_time_and_goes_on_when_it_can(
    author: Author, constitution_service: Service, database: Database
) -> None:
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    role = urlsplit(database.url).username

    async def from_memory() -> bool:
        name = "constitution_current_reads_total"
        before = await constitution_service.metric(name, source="memory")
        answers = [await author.http.get(PATH) for _ in range(3)]
        assert {generation_of(answer) for answer in answers} == {1}
        assert not any("age" in answer.headers for answer in answers)
        return await constitution_service.metric(name, source="memory") == before + 3

    async def from_postgres() -> bool:
        return not await from_memory()

    await eventually(from_memory)
    for change, expected in (("REVOKE {} FROM {}", from_postgres), ("GRANT {} TO {}", from_memory)):
        owner = await asyncpg.connect(database.owner_url)
        try:
            await owner.execute(change.format("INSERT, UPDATE ON service_processes", role))
        finally:
            await owner.close()
        await eventually(expected, timedelta(seconds=30))
    assert constitution_service.events("heartbeat_failed")


async def test_what_anybody_writes_to_redis_is_not_even_read(author: Author, redis: Redis, names: Names) -> None:
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    genuine = (await author.http.get(PATH)).content
    for forgery in (genuine.replace(b'"generation":1', b'"generation":9'), b"{}", b"[" * 100_000):
        await redis.set(names.redis_current(), forgery)
        assert (await author.http.get(PATH)).content == genuine
        assert (await author.http.get(PATH, headers={"Cache-Control": "no-cache"})).content == genuine
        assert await redis.get(names.redis_current()) == genuine


async def test_what_was_read_before_a_restore_is_not_given_after_it(disaster: Disaster) -> None:
    author = disaster.author
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    await disaster.recorded("0000000001/release")
    await disaster.back_up()
    await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    assert generation_of(await author.http.get(PATH)) == 2

    await disaster.restore()  # the process lives through it, with generation 2 in memory

    async def noticed() -> bool:
        answer = await author.http.get(PATH)
        if answer.status_code == 200:
            assert generation_of(answer) == 2  # never the older one
            return False
        return bool(answer.json()["code"] == "postgres-behind")

    await eventually(noticed)
    for _ in range(20):
        assert (await author.http.get(PATH)).json()["code"] == "postgres-behind"
        await asyncio.sleep(0.05)
    assert disaster.service.events("postgres_behind")


@pytest.mark.slow
async def test_a_generation_declared_lost_lets_the_older_one_be_current_again(disaster: Disaster) -> None:
    author = disaster.author
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    await disaster.recorded("0000000001/release")
    await disaster.back_up()
    await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    await disaster.restore()
    await disaster.lose("redis", "kafka", "store")
    code, _, error = await disaster.recover("releases", "--lost", "2", "--apply")
    assert code == 0, error

    async def again() -> bool:
        answer = await author.http.get(PATH)
        assert answer.status_code == 200, answer.text
        return generation_of(answer) == 1 and "warning" not in answer.headers

    await eventually(again, timedelta(seconds=30))
