"""A Kafka consumer for asyncio: librdkafka's blocking calls run on one thread of their own.

One thread, because a librdkafka consumer answers one call at a time: what is awaited last runs last, so that closing
waits for a poll in flight also when the task that polled was cancelled. Offsets are committed only by ``commit``.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from constitution.errors import UnavailableError

MAX_POLL_INTERVAL_MS = 86_400_000  # a sink may be down for a day before the group gives our partitions away
SESSION_TIMEOUT_MS = 10_000  # how long a dead replica keeps its partitions; librdkafka's own thread sends heartbeats
METADATA_REFRESH_MS = 5_000  # a topic made after the start is seen within this

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ConsumedMessage:
    """One record as it came off the topic; nothing in it is trusted.

    Attributes:
        key: None when absent.
        value: None for a tombstone.
        headers: in their order; a name may come twice.
        timestamp_ms: milliseconds since the epoch, 0 when the broker gave none.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int

    def header(self, name: str) -> str | None:
        """Return the first header of that name as text; None when absent or not UTF-8."""
        for key, value in self.headers:
            if key == name and value is not None:
                try:
                    return value.decode()
                except UnicodeDecodeError:
                    return None
        return None


class KafkaConsumer:
    """A member of one consumer group.

    Args:
        connection: librdkafka settings of the connection (``bootstrap.servers``, ``sasl.*``…).
        group: consumer group id.
        topics: topics to subscribe to; they need not exist yet.
        start: where to begin when the group has no committed offset.
    """

    def __init__(
        self,
        connection: Mapping[str, str | int],
        *,
        group: str,
        topics: Sequence[str],
        start: Literal["earliest", "latest"],
    ) -> None:
        self._settings: dict[str, object] = {
            **connection,
            "group.id": group,
            "auto.offset.reset": start,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "allow.auto.create.topics": False,
            "max.poll.interval.ms": MAX_POLL_INTERVAL_MS,
            "session.timeout.ms": SESSION_TIMEOUT_MS,
            "topic.metadata.refresh.interval.ms": METADATA_REFRESH_MS,
            "log_level": 0,  # librdkafka would print to stderr; errors come through error_cb
        }
        self._topics = list(topics)
        self._on_trouble: Callable[[str], None] = _ignore
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"kafka-{group}")
        self._consumer: Consumer | None = None

    async def start(self, *, on_trouble: Callable[[str], None], on_assigned: Callable[[int], None]) -> None:
        """Join the group. Returns at once, also when no broker answers: librdkafka goes on trying.

        Args:
            on_trouble: called with a message, on the consumer's thread, when something is wrong with the connection.
            on_assigned: called with the number of partitions, on the consumer's thread, when they were handed out.

        Raises:
            UnavailableError: the settings are refused by librdkafka.
        """
        self._on_trouble = on_trouble
        await self._call(self._open, on_assigned)

    async def read(self, limit: int, timeout_s: float) -> list[ConsumedMessage]:
        """Return up to ``limit`` records, or none after ``timeout_s`` seconds. Trouble goes to ``on_trouble``."""
        messages = await self._call(self._consume, limit, timeout_s)
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(_record(message))
            elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka names it so
                self._on_trouble(str(error))
        return records

    async def commit(self, records: Iterable[ConsumedMessage]) -> None:
        """Commit, synchronously, that everything up to each record's offset has been dealt with.

        Raises:
            UnavailableError: the broker did not take it; the records will come again.
        """
        highest: dict[tuple[str, int], int] = {}
        for record in records:
            place = (record.topic, record.partition)
            highest[place] = max(highest.get(place, 0), record.offset + 1)
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in highest.items()]
        if offsets:
            await self._call(self._commit, offsets)

    async def backlog(self) -> dict[tuple[str, int], int]:
        """Return per assigned partition how many offsets lie ahead, commit markers included, as last seen."""
        return await self._call(self._backlog)

    async def close(self) -> None:
        """Leave the group and end the thread."""
        await self._call(self._close)
        self._thread.shutdown(wait=False)

    async def _call(self, function: Callable[..., _T], *args: object) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args))
        except KafkaException as error:
            raise UnavailableError(f"Kafka: {error}") from error

    def _open(self, on_assigned: Callable[[int], None]) -> None:
        self._consumer = Consumer({**self._settings, "error_cb": lambda error: self._on_trouble(str(error))})
        self._consumer.subscribe(self._topics, on_assign=lambda _, given: on_assigned(len(given)))

    def _consume(self, limit: int, timeout_s: float) -> list[Message]:
        consumer = self._opened()
        first = consumer.poll(timeout_s)  # consume() alone would wait for all of `limit`, or the whole timeout
        return [] if first is None else [first, *consumer.consume(limit - 1, 0)] if limit > 1 else [first]

    def _commit(self, offsets: list[TopicPartition]) -> None:
        for result in self._opened().commit(offsets=offsets, asynchronous=False) or []:
            if result.error is not None:
                raise KafkaException(result.error)

    def _backlog(self) -> dict[tuple[str, int], int]:
        consumer = self._opened()
        ahead = {}
        for place in consumer.position(consumer.assignment()):
            _low, high = consumer.get_watermark_offsets(place, cached=True)
            if high >= 0 and place.offset >= 0:  # below zero: not known yet
                ahead[(place.topic, place.partition)] = max(0, high - place.offset)
        return ahead

    def _close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _opened(self) -> Consumer:
        if self._consumer is None:
            raise UnavailableError("the Kafka consumer is closed")
        return self._consumer


def _ignore(_message: str) -> None:
    """Do nothing: before the start there is no connection to report on."""


def _record(message: Message) -> ConsumedMessage:
    headers = message.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    kind, stamp = message.timestamp()
    partition, offset = message.partition(), message.offset()
    return ConsumedMessage(
        topic=message.topic() or "",
        partition=partition if partition is not None else -1,
        offset=offset if offset is not None else -1,
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=tuple((str(name), _bytes(value)) for name, value in pairs),
        timestamp_ms=stamp if kind else 0,
    )


def _bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
