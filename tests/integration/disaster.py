"""A service, everything that can be lost, and a story that is lost: for tests of docs/backup-and-restore.md."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient
from redis.asyncio import Redis

from constitution.api import LoadResult
from constitution.errors import ConflictError, UnavailableError
from constitution.names import Names
from constitution.release import Delivery, Kind, Release, Standing
from tests.helpers import eventually
from tests.resources import Database
from tests.world.author import Author
from tests.world.database import back_up, lose, restore
from tests.world.documents import following
from tests.world.files import CHECKOUT, ENVIRONMENT
from tests.world.processes import Service


@dataclass
class Disaster:
    """The service of one test, and everything that can be lost."""

    author: Author
    service: Service
    settings: dict[str, str]
    database: Database
    admin_url: str
    template: str
    redis: Redis
    names: Names
    kafka: AdminClient
    backup: Path

    @property
    def store(self) -> Path:
        return Path(self.settings["ARTIFACT_STORE_URL"].removeprefix("file://"))

    async def back_up(self) -> None:
        await back_up(self.database.owner_url, self.backup)

    async def restore(self) -> None:
        await restore(self.admin_url, self.database.owner_url, self.backup)

    async def restore_nothing(self) -> None:
        """Lose the database, and make an empty one under the same name: there was no backup."""
        await lose(self.admin_url, self.database.owner_url, self.template)

    async def lose(self, *what: str) -> None:
        if "redis" in what:
            keys = [key async for key in self.redis.scan_iter(match=f"{self.names.namespace}:*")]
            await self.redis.delete(*keys)
        if "kafka" in what:
            for gone in self.kafka.delete_topics([self.names.topic_updated()], operation_timeout=10).values():
                gone.result(10)
        if "store" in what:
            shutil.rmtree(self.store)
            self.store.mkdir()

    def begin_recover(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the operator's command."""
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "services.constitution_service.recovery", *arguments],
            env={**self.settings, "PATH": os.environ["PATH"]},
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def recover(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        """Run the operator's command; (exit code, answer, stderr)."""
        process = self.begin_recover(*arguments)
        try:
            out, error = await asyncio.to_thread(process.communicate, timeout=60)
        finally:
            process.kill()
        return process.returncode, json.loads(out) if out else {}, error

    async def releases(self) -> list[Release]:
        """Every release, oldest first; of its delivery only where its events lie."""
        found = await self.author.worker.releases()
        return [
            one.model_copy(update={"delivery": Delivery(events=one.delivery.events)})
            for one in sorted(found, key=lambda one: one.generation)
        ]

    async def recorded(self, *names: str) -> None:
        """Wait until the store holds records."""
        await eventually(lambda: _all(self.records(*names)))

    def records(self, *names: str) -> list[Path]:
        """Where the store holds records."""
        return [self.store / "releases" / self.names.namespace / ENVIRONMENT / f"{name}.json" for name in names]


async def _all(files: Any) -> bool:
    return all(file.is_file() for file in files)


async def story(disaster: Disaster) -> LoadResult:
    """Generation 1 is in the backup; 2 was confirmed, 3 was poisoned and rolled back by 4 after it. Returns 4."""
    author = disaster.author
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    await author.delivered(1)
    await disaster.recorded("0000000001/release", "0000000001/confirmed")
    await disaster.back_up()
    second = await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
    bad, held = await author.publish(author.draft("1.2.0", following(second)), expected_generation=2)
    undo = await author.lease(held.update_id, Kind.ROLLBACK)
    restored = await author.load(author.undoing(undo, bad.generation, second.checksum), "undo")
    await author.stand(bad.generation, Standing.POISONED, undo)
    await author.release_lease(undo)
    await author.delivered(4)
    await disaster.recorded("0000000002/confirmed", "0000000003/poisoned", "0000000004/release")
    return restored


async def refuses(disaster: Disaster, highest: int) -> None:
    """Whatever would give out a generation is refused, and so is the answer to what is current."""
    author = disaster.author
    with pytest.raises(ConflictError, match=rf"generation {highest} was live .* PostgreSQL knows only 1") as held:
        await author.lease(str(uuid4()))
    assert held.value.current is not None
    assert held.value.current["generation"] == highest
    request = await author.prepared(author.draft("1.3.0"), expected_generation=1)
    answer = await author.post_load(request)
    assert (answer.status_code, answer.json()["code"]) == (409, "postgres-behind")
    with pytest.raises(UnavailableError, match="restored from an older backup"):
        await author.worker.current()
    assert "recovery releases" in (await author.worker.ready()).checks["generations"]
