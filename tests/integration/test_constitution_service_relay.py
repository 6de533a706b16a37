"""The relay under faults: nothing committed is lost, nothing forged stays, nothing late changes anything."""

import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from adapters.redis_cache import ConstitutionCache
from constitution.names import Names
from constitution.release import CurrentConstitution
from tests.helpers import eventually
from tests.ports import free_port
from tests.resources import Database
from tests.world.author import Author
from tests.world.documents import following
from tests.world.environment import serving
from tests.world.files import EnvironmentFiles
from tests.world.processes import Service
from tests.world.readings import Record, Topics


async def holds(cache: ConstitutionCache, generation: int) -> bool:
    raw = await cache.read("default")
    try:
        return raw is not None and CurrentConstitution.model_validate_json(raw).generation == generation
    except ValueError:
        return False


async def test_deleting_the_value_by_hand_is_safe_the_next_read_restores_it(
    author: Author, redis: Redis, names: Names, cache: ConstitutionCache
) -> None:
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)

    await redis.delete(names.redis_current())
    current = await author.worker.current()

    assert current is not None
    assert current.generation == 1
    assert await holds(cache, 1)


async def test_deleting_the_value_by_hand_is_safe_without_any_read(
    author: Author, redis: Redis, names: Names, cache: ConstitutionCache
) -> None:
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)

    await redis.delete(names.redis_current(), names.redis_floor())

    await eventually(lambda: holds(cache, 1))
    assert await redis.get(names.redis_floor()) == b"1"


async def test_forged_values_are_never_served_are_overwritten_and_are_audited(
    author: Author, redis: Redis, names: Names, cache: ConstitutionCache, topics: Topics
) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    raw = await cache.read("default")
    assert raw is not None
    genuine = CurrentConstitution.model_validate_json(raw)
    assert genuine.document is not None
    forgeries = (
        genuine.model_copy(update={"document": genuine.document.replace("deny", "allow")}).model_dump_json(),
        genuine.model_copy(update={"generation": 999}).model_dump_json(),
        genuine.model_copy(update={"signatures": ()}).model_dump_json(),
        "not even JSON",
        "[" * 100_000,
    )
    for forgery in forgeries:
        await redis.set(names.redis_current(), forgery)
        current = await author.worker.current()
        assert current == genuine
        await eventually(lambda: holds(cache, 1))
    await redis.delete(names.redis_current())
    await redis.rpush(names.redis_current(), "another type")
    assert await author.worker.current() == genuine
    await eventually(lambda: holds(cache, 1))

    await redis.set(names.redis_current(), forgeries[1])

    async def reported() -> bool:
        found = [record.value for record in await topics.audit()]
        return any(event["api"]["operation"] == "cache.forged" for event in found)

    await eventually(reported)
    assert first.generation == 1


async def test_a_forged_floor_keeps_no_release_out_of_redis(
    author: Author, redis: Redis, names: Names, cache: ConstitutionCache
) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    for floor in (b"1000000", b"inf", b"nan", b"rubbish", b""):
        await redis.set(names.redis_floor(), floor)
    await redis.set(names.redis_floor(), b"1000000")

    await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)

    await author.delivered(2)
    assert await holds(cache, 2)
    assert await redis.get(names.redis_floor()) == b"2"


async def test_an_older_generation_never_replaces_a_newer_one(author: Author, cache: ConstitutionCache) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    raw = await cache.read("default")
    assert raw is not None
    old = CurrentConstitution.model_validate_json(raw)
    await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    await author.delivered(2)

    assert not await cache.write("default", old)
    assert await holds(cache, 2)


async def test_killed_between_commit_and_delivery_nothing_is_lost_nor_reordered(
    author: Author,
    constitution_service: Service,
    service_settings: dict[str, str],
    topics: Topics,
    tmp_path: Path,
) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    # A service that cannot reach Kafka commits and cannot deliver; it is killed with all of it in the outbox.
    constitution_service.kill()
    settings = {**service_settings, "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
    async with serving(author.files, settings, tmp_path / "cut-off.log") as cut_off:
        lonely = cut_off.author
        second = await lonely.confirmed(lonely.draft("1.1.0", following(first)), expected_generation=1)
        third = await lonely.confirmed(lonely.draft("1.2.0", following(second)), expected_generation=2)
        await lonely.confirmed(lonely.draft("1.3.0", following(third)), expected_generation=3)
        assert (await lonely.worker.release(2)).delivery.delivered_at is None
        cut_off.service.kill()
    assert {record.value["generation"] for record in await topics.updated()} == {1}

    await constitution_service.start().ready()

    await author.delivered(4)
    records = await topics.updated()
    assert [(r.value["generation"], r.key) for r in records] == [
        (generation, tenant) for generation in (1, 2, 3, 4) for tenant in ("global", "acme")
    ]
    assert len({r.headers["ce_id"] for r in records}) == 8


@pytest.mark.slow
async def test_killed_again_and_again_while_releasing_loses_nothing(
    author: Author, constitution_service: Service, topics: Topics
) -> None:
    previous = None
    for generation in range(1, 5):
        document = author.draft(f"1.{generation}.0", previous)
        result, lease = await author.publish(document, expected_generation=generation - 1)
        constitution_service.kill()
        await constitution_service.start().ready()
        await author.release_lease(lease)
        previous = following(result)

    await author.delivered(4)
    records = [record for record in await topics.updated() if record.key == "global"]
    seen: dict[str, Record] = {}
    for record in records:
        seen.setdefault(record.headers["ce_id"], record)
    assert [record.value["generation"] for record in seen.values()] == [1, 2, 3, 4]


async def test_without_redis_the_event_is_late_by_a_second_at_most(
    author: Author,
    constitution_service: Service,
    service_settings: dict[str, str],
    tmp_path: Path,
    topics: Topics,
) -> None:
    constitution_service.kill()
    settings = {**service_settings, "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    async with serving(author.files, settings, tmp_path / "alone.log") as alone:
        lonely = alone.author
        result = await lonely.confirmed(lonely.draft("1.0.0"), expected_generation=0)

        async def sent() -> bool:
            return (await lonely.worker.release(1)).delivery.delivered_at is not None

        await eventually(sent)
        current = await lonely.worker.current()
        ready = (await lonely.http.get("/readyz")).json()
        release = await lonely.worker.release(1)
    assert current is not None
    assert current.checksum == result.checksum
    assert ready["status"] == "degraded"
    assert release.delivery.redis_at is None
    assert len(await topics.updated()) == 2


@pytest.fixture
async def second(
    environment_files: EnvironmentFiles, service_settings: dict[str, str], tmp_path: Path
) -> AsyncIterator[Service]:
    """A second process of the service, beside the first."""
    async with serving(environment_files, service_settings, tmp_path / "second.log") as beside:
        yield beside.service


async def test_a_stopped_relay_is_replaced_and_changes_nothing_when_it_wakes(
    author: Author,
    constitution_service: Service,
    second: Service,
    topics: Topics,
    cache: ConstitutionCache,
) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    assert constitution_service.events("relay_elected")
    assert not second.events("relay_elected")
    other = Author(author.files, second.url)
    try:
        constitution_service.send(signal.SIGSTOP)
        await other.confirmed(other.draft("1.1.0", following(first)), expected_generation=1)
        await other.delivered(2)
        constitution_service.send(signal.SIGCONT)
        await eventually(lambda: bool(constitution_service.events("relay_yields")))
        third = await author.confirmed(
            author.draft("1.2.0", following(first), previous=(await live(author))), expected_generation=2
        )
        await author.delivered(3)
    finally:
        constitution_service.send(signal.SIGCONT)
        await other.aclose()

    records = [record for record in await topics.updated() if record.key == "global"]
    assert [record.value["generation"] for record in records] == [1, 2, 3]
    assert await holds(cache, third.generation)


async def live(author: Author) -> dict[str, str]:
    current = await author.worker.current()
    assert current is not None
    assert current.version is not None
    assert current.checksum is not None
    return {"version": current.version, "checksum": current.checksum}


async def test_postgres_cut_off_is_503_then_everything_goes_on(
    author: Author,
    database: Database,
    postgres_settings: dict[str, str],
    topics: Topics,
    service_settings: dict[str, str],
) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    name = database.url.partition("?")[0].rpartition("/")[2]
    admin = await asyncpg.connect(postgres_settings["DATABASE_ADMIN_URL"])
    try:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)

        answer = await author.http.get("/v1/constitution", headers={"Cache-Control": "no-cache"})
        refused = await author.http.post("/v1/constitution/lease", json={})
        ready = await author.http.get("/readyz")
        alive = await author.http.get("/healthz")
    finally:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await admin.close()

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/problem+json"
    assert (refused.status_code, ready.status_code, alive.status_code) == (403, 503, 200)
    await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    await author.delivered(2)

    async def drained() -> bool:
        found = [record.value for record in await topics.audit()]
        return any(event["api"]["operation"] == "lease.refused" for event in found)

    await eventually(drained, timedelta(seconds=20))
    await eventually(lambda: not spooled(service_settings))


def spooled(settings: dict[str, str]) -> list[Path]:
    return list(Path(settings["SPOOL_DIRECTORY"]).iterdir())
