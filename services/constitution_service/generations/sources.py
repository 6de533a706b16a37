"""Reads signed releases back from the systems beside PostgreSQL: Redis, the topic on Kafka, the artifact store.

One reader for all: the generation guard takes the newest release, recovery takes every one, and the cache writer
judges one value. So recovery finds every release by which the guard refuses, and no hint names a command that finds
nothing to do.

Anybody may have written there. A release is returned only if a pinned service key signed it for this environment
(invariant 8), and reading it costs a bounded amount: ``adapters.redis_cache`` and ``adapters.artifact_store`` take no
larger object, ``constitution.untrusted`` no more values, ``generations.records`` no longer list and no larger record.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from adapters.artifact_store import ArtifactStore
from adapters.environment_config import EnvironmentConfig
from adapters.event_log import KafkaEventLog
from adapters.redis_cache import ConstitutionCache
from constitution.errors import UnavailableError, UntrustedError
from constitution.events import UpdatedEvent
from constitution.names import Names
from constitution.release import CurrentConstitution, Envelope, ReleasePredicate, Standing
from services.constitution_service.generations.records import (
    ReleaseRecord,
    StandingFile,
    listed,
    read_release_record,
    read_standing,
    record_path,
)
from signatures.current import read_current
from signatures.released import read_signed_value, signed_events

BEGINNING = datetime(1971, 1, 1, tzinfo=UTC)
KAFKA_WAIT = timedelta(seconds=3)  # for each answer of a broker
STORE_AT_ONCE = 32  # reads of the artifact store under way


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRelease:
    """A release that was live, for a pinned service key signed its statement for this environment.

    Args:
        release: what the statement says.
        statement: the statement.
        where: where it was read.
        value: the Redis value that holds it; nothing else of it is proved.
        event: the event that holds it, and its value; nothing else of them is proved.
        record: the record that holds it; a service key signed all of it.
    """

    release: ReleasePredicate
    statement: Envelope
    where: str
    value: CurrentConstitution | None = None
    event: tuple[Mapping[str, Any], UpdatedEvent] | None = None
    record: ReleaseRecord | None = None


class ReleaseSources:
    """See the module.

    Args:
        config: environment, rings and the keys that count.
        names: of keys and topics.
        cache: Redis.
        store: the artifact store.
        kafka: connection part of librdkafka's configuration.
        kafka_wait: how long a broker may take for each answer.
    """

    def __init__(
        self,
        *,
        config: EnvironmentConfig,
        names: Names,
        cache: ConstitutionCache,
        store: ArtifactStore,
        kafka: Mapping[str, str],
        kafka_wait: timedelta = KAFKA_WAIT,
    ) -> None:
        self._config = config
        self._names = names
        self._cache = cache
        self._store = store
        self._topic = KafkaEventLog(kafka, names, timeout=kafka_wait)
        self._brokers = kafka["bootstrap.servers"].split(",")
        self._kafka_wait = kafka_wait.total_seconds()
        self._store_slots = asyncio.Semaphore(STORE_AT_ONCE)

    async def prove_value(self, raw: bytes, ring: str) -> CurrentConstitution:
        """Return the Redis value of a ring, once all of it is proved.

        Raises:
            UntrustedError: it is not what a pinned service key signed for this ring.
        """
        config = self._config
        return await asyncio.to_thread(read_current, raw, trust=config.trust, environment=config.name, ring=ring)

    async def in_redis(self) -> AsyncIterator[SignedRelease]:
        """Yield the release that each ring's value proves, if it proves one.

        Raises:
            UnavailableError: Redis did not answer.
        """
        for ring in self._config.environment.rings():
            raw = await self._cache.read(ring)
            if raw is None:
                continue
            try:
                value, release = await asyncio.to_thread(read_signed_value, raw, self._config.trust)
            except UntrustedError:
                continue  # forged: the cache writer overwrites it
            where = f"Redis, ring {ring}"
            yield SignedRelease(release=release, statement=value.statement, where=where, value=value)

    async def on_topic(self, above: int, since: datetime) -> list[dict[str, Any]]:
        """Return the events of generations above ``above``, oldest first, verified or not.

        Raises:
            UnavailableError: Kafka did not answer in time.
            ForbiddenError, UnsupportedServerError: it does not let this service in, and will not.
        """
        await self._reach_broker()
        return await self._topic.find_newer(above, since)

    def signed(self, events: Iterable[Mapping[str, Any]]) -> Iterator[SignedRelease]:
        """Yield the releases that events prove, the newest first. It computes: call it in a thread."""
        for event, value, release in signed_events(events, self._config.trust):
            where = f"Kafka, offset {event['offset']}"
            yield SignedRelease(release=release, statement=value.statement, where=where, event=(event, value))

    async def require_kafka(self) -> None:
        """Prove that Kafka lets this service in.

        Raises:
            UnavailableError: no broker answers in time.
            ForbiddenError, UnsupportedServerError: it does not let this service in, and will not.
        """
        await self._reach_broker()
        await self._topic.require_usable()

    async def recorded(self, above: int) -> list[int]:
        """Return the generations above ``above`` of which the store holds anything, ascending; not verified.

        Raises:
            UnavailableError: the store did not answer in time.
        """
        return await listed(self._store, self._names, self._config.name, above)

    async def record(self, generation: int) -> SignedRelease | None:
        """Return what the record of a generation proves; None if the store holds none that is signed.

        Raises:
            UnavailableError: the store did not answer in time.
        """
        data, config = await self._read(generation, "release"), self._config
        if data is None:
            return None
        try:
            record, release = await asyncio.to_thread(read_release_record, data, config.trust, config.name, generation)
        except UntrustedError:
            return None
        return SignedRelease(release=release, statement=record.statement, where="the artifact store", record=record)

    async def standing(self, generation: int, standing: Standing) -> StandingFile | None:
        """Return the record of a standing; None if the store holds none that is signed.

        Raises:
            UnavailableError: the store did not answer in time.
        """
        data, config = await self._read(generation, standing.value), self._config
        try:
            return None if data is None else read_standing(data, config.trust, config.name, generation, standing)
        except UntrustedError:
            return None

    async def _read(self, generation: int, name: str) -> bytes | None:
        async with self._store_slots:
            return await self._store.read(record_path(self._names, self._config.name, generation, name))

    async def _reach_broker(self) -> None:
        """Return when a broker takes a connection: the driver needs its whole timeout to say that none does.

        Raises:
            UnavailableError: none does.
        """
        for broker in self._brokers:
            host, _, port = broker.strip().rpartition(":")
            try:
                async with asyncio.timeout(self._kafka_wait):
                    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            except (OSError, TimeoutError, ValueError):
                continue
            writer.close()
            return
        raise UnavailableError("no broker takes a connection")
