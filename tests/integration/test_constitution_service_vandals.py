"""Whoever can write to Redis or the artifact store, and has no key, neither blocks a release nor fells the service."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from adapters.redis_cache import MAX_VALUE, ConstitutionCache
from constitution.names import Names
from tests.helpers import eventually
from tests.world.author import Author
from tests.world.documents import following
from tests.world.processes import Service

HUGE = 200 * 1024 * 1024  # bytes
ROOM = 100 * 1024 * 1024  # bytes that the service may grow by


def peak(process: Service) -> int:
    """The most memory that a process ever had, in bytes."""
    assert process.process is not None
    for line in Path(f"/proc/{process.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM in /proc")


async def test_a_huge_value_in_redis_is_not_even_read(
    *,
    author: Author,
    constitution_service: Service,
    redis: Redis,
    redis_url: str,
    names: Names,
    cache: ConstitutionCache,
) -> None:
    await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    genuine = await author.worker.current()
    before = peak(constitution_service)
    async with Redis.from_url(redis_url) as patient:  # the server fills all of it before it answers
        await patient.setrange(names.redis_current(), HUGE, "x")
    assert await author.worker.current() == genuine

    async def mended() -> bool:
        return 0 < await redis.strlen(names.redis_current()) <= MAX_VALUE

    await eventually(mended)
    assert peak(constitution_service) - before < ROOM
    assert await cache.read("default")


@pytest.mark.parametrize(
    "floor",
    [
        b"1000000" + b" " * 100_000,
        b"1e308",
        *(pytest.param(one, marks=pytest.mark.slow) for one in (b"0x7fffffff", b" 99")),
    ],
)
async def test_no_way_of_writing_a_forged_floor_keeps_a_release_out(
    author: Author, redis: Redis, names: Names, floor: bytes
) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    await redis.set(names.redis_floor(), floor)
    await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    await author.delivered(2)

    async def lowered() -> bool:
        return await redis.get(names.redis_floor()) == b"2"

    await eventually(lowered)


@pytest.mark.parametrize("damage", ["a huge file", "a folder"])
async def test_damage_in_the_store_stops_no_release(
    author: Author, constitution_service: Service, service_settings: dict[str, str], damage: str
) -> None:
    document = author.draft("1.0.0")
    checksum = await author.push(document)
    before = peak(constitution_service)
    store = Path(service_settings["ARTIFACT_STORE_URL"].removeprefix("file://"))
    path = store / "artifacts" / "sha256" / checksum.removeprefix("sha256:") / "document.json"
    path.unlink()
    if damage == "a folder":
        path.mkdir()
        (path / "rubbish").write_text("x")
    else:
        with path.open("wb") as file:
            file.truncate(HUGE)
    assert await author.worker.artifact(checksum) == document
    assert peak(constitution_service) - before < ROOM
    assert await author.push(document) == checksum
    released = await author.confirmed(document, expected_generation=0)
    assert released.generation == 1
