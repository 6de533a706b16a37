"""constitution-service with Redis behind Sentinel, and with a cluster: failovers, a moved slot, what is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from adapters.redis_cache import ConstitutionCache
from adapters.redis_client import connect
from constitution.api import LoadResult
from constitution.errors import ConstitutionError, UnavailableError
from constitution.names import Names
from constitution.release import CurrentConstitution
from tests.helpers import eventually
from tests.world.author import Author
from tests.world.authority import Authority
from tests.world.documents import following
from tests.world.environment import serving
from tests.world.files import EnvironmentFiles
from tests.world.redis_groups import Cluster, SentinelGroup


@asynccontextmanager
async def caching(url: str, names: Names) -> AsyncIterator[ConstitutionCache]:
    """A reader of one's own, as the worker has."""
    client = connect(url)
    try:
        yield ConstitutionCache(client, names)
    finally:
        await client.aclose()


async def holds(cache: ConstitutionCache, generation: int) -> bool:
    """Whether the value and the floor are of this generation."""
    try:
        raw, floor = await cache.read("default"), await cache.floor("default")
    except UnavailableError:
        return False
    assert raw is not None
    assert (CurrentConstitution.model_validate_json(raw).generation, floor) == (generation, str(generation).encode())
    return True


class Reader:
    """Asks for the current release without a pause; an answer that is older than what was confirmed is kept."""

    def __init__(self, author: Author) -> None:
        self._author = author
        self.confirmed, self.asked = 0, 0
        self.stale: list[tuple[int, int]] = []

    @asynccontextmanager
    async def reading(self) -> AsyncIterator["Reader"]:
        task = asyncio.create_task(self._read())
        try:
            yield self
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def _read(self) -> None:
        while True:
            confirmed = self.confirmed
            for headers in ({}, {"Cache-Control": "no-cache"}):  # from the service's memory, and past it
                answer = await self._author.http.get("/v1/constitution", headers=headers)
                generation = int(answer.headers["Constitution-Generation"])
                if answer.status_code != 200 or generation < confirmed:
                    self.stale.append((confirmed, generation))
            self.asked += 1
            await asyncio.sleep(0.02)


async def released(author: Author, generation: int, before: LoadResult | None, reader: Reader | None) -> LoadResult:
    """Put the next release live and confirm it."""
    draft = author.draft(f"1.{generation}.0", None if before is None else following(before))
    result = await author.confirmed(draft, expected_generation=generation - 1)
    if reader is not None:
        reader.confirmed = generation
    return result


@pytest.mark.slow
async def test_releases_go_on_through_a_primary_that_dies_with_what_it_had_not_passed_on(
    service_settings: dict[str, str], environment_files: EnvironmentFiles, names: Names, tmp_path: Path
) -> None:
    group = SentinelGroup(tmp_path / "redis")
    async with group.running(), caching(group.url, names) as cache:
        settings = service_settings | {"REDIS_URL": group.url}
        async with serving(environment_files, settings, tmp_path / "log") as served:
            author = served.author
            first = await released(author, 1, None, None)
            await author.delivered(1)
            await eventually(lambda: holds(cache, 1))
            async with Reader(author).reading() as reader:
                reader.confirmed = 1
                await group.sever()
                second = await released(author, 2, first, reader)
                await author.delivered(2)
                assert await holds(cache, 2)
                assert await group.replica.ask("GET", names.redis_floor()) == b"1"
                await group.primary.stop()  # killed: what it has of generation 2 is lost

                await eventually(lambda: promoted(group, group.replica.port))
                await eventually(lambda: holds(cache, 2))
                third = await released(author, 3, second, reader)
                await author.delivered(3)
                await eventually(lambda: holds(cache, 3))

                await group.primary.start()  # comes back as a replica, and is made primary again, by order
                await eventually(lambda: follows(group))
                await group.sentinels[0].ask("SENTINEL", "FAILOVER", group.NAME)
                await eventually(lambda: promoted(group, group.primary.port))
                await eventually(lambda: holds(cache, 3))
                await released(author, 4, third, reader)
                await author.delivered(4)
                await eventually(lambda: holds(cache, 4))
            assert reader.stale == []
            assert reader.asked > 10
            assert (await author.worker.ready()).checks["redis"] == "ok"


async def promoted(group: SentinelGroup, port: int) -> bool:
    return await group.primary_port() == port


async def follows(group: SentinelGroup) -> bool:
    state = await group.primary.ask("INFO", "replication")
    return (state["role"], state.get("master_link_status")) == ("slave", "up")


async def test_without_any_sentinel_redis_is_said_to_be_away_and_releases_go_on(
    service_settings: dict[str, str], environment_files: EnvironmentFiles, names: Names, tmp_path: Path
) -> None:
    group = SentinelGroup(tmp_path / "redis")
    settings = service_settings | {"REDIS_URL": group.url}
    async with serving(environment_files, settings, tmp_path / "log", accepted=(200, 503)) as served:
        author = served.author
        assert "Redis is not available" in (await author.worker.ready()).checks["redis"]
        await released(author, 1, None, None)
        async with group.running(), caching(group.url, names) as cache:
            await author.delivered(1)
            await eventually(lambda: holds(cache, 1))


async def test_in_a_cluster_value_and_floor_are_written_together_also_where_their_slot_moves(
    service_settings: dict[str, str], environment_files: EnvironmentFiles, names: Names, tmp_path: Path
) -> None:
    cluster = Cluster(tmp_path / "redis")
    async with cluster.running(), caching(cluster.url, names) as cache:
        settings = service_settings | {"REDIS_URL": cluster.url}
        async with serving(environment_files, settings, tmp_path / "log") as served:
            author = served.author
            first = await released(author, 1, None, None)
            await author.delivered(1)
            assert await holds(cache, 1)
            value = names.redis_current()
            owner = await cluster.owner(value)
            assert await owner.ask("EXISTS", value, names.redis_floor(clustered=True)) == 2

            await owner.ask("DEL", value)  # by hand, as the runbook says
            await eventually(lambda: holds(cache, 1))

            async with Reader(author).reading() as reader:
                reader.confirmed = 1
                moved = await cluster.move(value)
                assert moved is not owner
                second = await released(author, 2, first, reader)
                await author.delivered(2)
                assert await holds(cache, 2)
                assert await moved.ask("EXISTS", value, names.redis_floor(clustered=True)) == 2
                old = CurrentConstitution.model_validate_json(await cache.read("default") or b"")
                assert not await cache.write("default", old.model_copy(update={"generation": 1}))

                await moved.stop()  # the slot has no node: Redis is away, and no release depends on it
                await released(author, 3, second, reader)
                assert "Redis is not available" in (await author.worker.ready()).checks["redis"]
                await moved.start()  # empty, as all that it had was in memory
                await author.delivered(3)
                await eventually(lambda: holds(cache, 3))
            assert reader.stale == []
            assert (await author.worker.ready()).checks["redis"] == "ok"


async def test_one_server_that_is_named_as_a_cluster_is_refused_before_the_lease(
    service_settings: dict[str, str], environment_files: EnvironmentFiles, redis_url: str, tmp_path: Path
) -> None:
    url = redis_url.replace("redis://", "redis+cluster://")
    async with serving(
        environment_files, service_settings | {"REDIS_URL": url}, tmp_path / "log", accepted=(200, 503)
    ) as served:
        with pytest.raises(ConstitutionError, match="does not run in cluster mode") as said:
            await served.author.lease(str(uuid4()))
        assert said.value.permanent
        assert "does not run in cluster mode" in (await served.author.worker.ready()).checks["redis"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SentinelGroup, Cluster])
async def test_with_tls_every_server_is_verified_by_the_machines_authorities(
    kind: type[SentinelGroup | Cluster], names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "authority")
    group = kind(tmp_path / "redis", authority)
    async with group.running():
        async with caching(group.url, names) as cache:
            with pytest.raises(UnavailableError):
                await cache.ping()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        async with caching(group.url, names) as cache:
            await cache.ping()
            assert await cache.read("default") is None
            assert await cache.floor("default") is None
