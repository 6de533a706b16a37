"""What the guard says while releases are committed beside it: never that PostgreSQL has lost one that it has."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import pytest

from adapters.artifact_store import ArtifactStore
from adapters.environment_config import load_environment_config
from adapters.postgres import Database as Pool
from adapters.redis_cache import ConstitutionCache
from constitution.names import Names
from services.constitution_service.errors import BehindError, PostgresBehindError
from services.constitution_service.generations.guard import GenerationGuard
from services.constitution_service.generations.sources import ReleaseSources
from tests.resources import Database
from tests.world.files import EnvironmentFiles

GENERATIONS = 300
ASKING = 8


@dataclass
class TwoProcesses:
    """The generation guards of two processes over one database."""

    one: GenerationGuard
    other: GenerationGuard
    owner: asyncpg.Connection


@asynccontextmanager
async def pool(url: str) -> AsyncIterator[Pool]:
    made = Pool(url, application_name="test", connections=ASKING + 2)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def two(
    *,
    environment_files: EnvironmentFiles,
    database: Database,
    cache: ConstitutionCache,
    service_settings: dict[str, str],
    kafka_configuration: dict[str, str],
    names: Names,
) -> AsyncIterator[TwoProcesses]:
    owner = await asyncpg.connect(database.owner_url)
    config = load_environment_config(environment_files.environment_file)
    sources = ReleaseSources(
        config=config,
        names=names,
        cache=cache,
        store=ArtifactStore(service_settings["ARTIFACT_STORE_URL"]),
        kafka=kafka_configuration,
    )
    async with pool(database.url) as first, pool(database.url) as second:
        one, other = (
            GenerationGuard(environment=config.name, database=used, sources=sources) for used in (first, second)
        )
        await one.look()
        await other.look()
        yield TwoProcesses(one, other, owner)
    await owner.close()


async def test_a_release_committed_while_somebody_looks_is_not_taken_for_a_lost_one(two: TwoProcesses) -> None:
    over = asyncio.Event()
    refused: list[str] = []

    async def ask(guard: GenerationGuard) -> None:
        while not over.is_set():
            try:
                await guard.require(next_generation=False)
                guard.refuse_to_serve()
            except (PostgresBehindError, BehindError) as error:
                refused.append(error.message)

    asking = [asyncio.create_task(ask(guard)) for guard in (two.one, two.other) for _ in range(ASKING)]
    for generation in range(1, GENERATIONS + 1):
        # A lost generation counts as given out, and takes no more than a row.
        await two.owner.execute(
            "INSERT INTO lost_generations (environment, generation, reason) VALUES ('development', $1, 'x')", generation
        )
        two.one.committed(generation)
    over.set()
    await asyncio.gather(*asking)

    assert refused == []


async def test_what_was_seen_is_missed_by_the_next_who_looks(two: TwoProcesses) -> None:
    two.one.committed(7)
    with pytest.raises(PostgresBehindError, match="generation 7 was live"):
        await two.one.require(next_generation=False)
    with pytest.raises(BehindError, match="restored from an older backup"):
        two.one.refuse_to_serve()
    for generation in range(1, 8):
        await two.owner.execute(
            "INSERT INTO lost_generations (environment, generation, reason) VALUES ('development', $1, 'x')", generation
        )
    await two.one.require(next_generation=False)
    two.one.refuse_to_serve()
