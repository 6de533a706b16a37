"""A Kafka producer that a newer one fences: every send is one transaction under a fixed transactional id.

A process that was stopped and wakes late cannot commit any more (KIP-98, zombie fencing; invariant 6). That producer
is dead: ``ProducerFencedError`` says so, and its owner builds a new one if it still may. Calls block; each instance
runs them on one thread of its own, off the event loop.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from constitution.errors import UnavailableError

INIT_TIMEOUT = timedelta(seconds=5)  # also the longest that a stop can take while Kafka is silent
SEND_TIMEOUT = timedelta(seconds=10)
TRANSACTION_TIMEOUT = timedelta(seconds=15)  # a dead producer's open transaction blocks readers at most this long
ADMIN_TIMEOUT = timedelta(seconds=5)
# Records of releases are kept for ever, each of them: a consumer may read from the beginning at any time.
TOPIC_SETTINGS = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class ProducerFencedError(UnavailableError):
    """This producer can never send again; build a new one, if the right to send is still there."""

    code = "producer-fenced"


@dataclass(frozen=True, slots=True)
class ProducedMessage:
    """One record to send; headers in order."""

    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record went."""

    partition: int
    offset: int


class FencedProducer:
    """Sends records in transactions; see the module.

    Args:
        client: connection part of the configuration (adapters.kafka_settings).
        transactional_id: shared by all processes that may be the one sender.
        record_timeout: after which a record that the broker has not taken fails its transaction.
        commit_timeout: after which a commit that was not answered is in doubt; also of the abort.
    """

    def __init__(
        self,
        client: Mapping[str, str],
        transactional_id: str,
        *,
        record_timeout: timedelta = SEND_TIMEOUT,
        commit_timeout: timedelta = SEND_TIMEOUT,
    ) -> None:
        self._commit_seconds = commit_timeout.total_seconds()
        self._config: dict[str, Any] = {
            **client,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": int(TRANSACTION_TIMEOUT.total_seconds() * 1000),
            "message.timeout.ms": int(record_timeout.total_seconds() * 1000),
            "socket.timeout.ms": 10_000,
            "reconnect.backoff.max.ms": 1_000,
            "linger.ms": 0,  # one event matters more than a full batch
            "message.max.bytes": 1_000_000,
            "error_cb": _on_error,
        }
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-producer")
        self._producer: Producer | None = None

    async def open(self) -> None:
        """Fence every older producer of this transactional id; aborts what they left open.

        Raises:
            UnavailableError: the broker did not answer in time; try again with a new instance.
        """
        await self._off_loop(self._open)

    async def send(self, records: Sequence[ProducedMessage]) -> list[Position]:
        """Send all records in one transaction, in order, and return where each went.

        Raises:
            ProducerFencedError: a newer producer exists, or this one is broken for good; nothing was sent.
            UnavailableError: the transaction was aborted; nothing was sent; may be tried again.
        """
        return await self._off_loop(self._send, records)

    def close(self) -> None:
        """Forget the producer; an open transaction is aborted by the next one's ``open``."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _off_loop(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _open(self) -> None:
        producer = Producer(self._config, logger=logging.getLogger("librdkafka"))
        try:
            producer.init_transactions(INIT_TIMEOUT.total_seconds())
        except KafkaException as error:
            raise UnavailableError(f"Kafka is not available: {_reason(error)}") from error
        self._producer = producer

    def _send(self, records: Sequence[ProducedMessage]) -> list[Position]:
        producer = self._producer
        if producer is None:
            raise ProducerFencedError("the producer is not open")
        positions: dict[int, Position] = {}
        failures: list[KafkaError] = []
        failed: KafkaException | BufferError | None = None

        def delivered(index: int, error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failures.append(error)
                return
            partition, offset = message.partition(), message.offset()
            if partition is not None and offset is not None:
                positions[index] = Position(partition, offset)

        try:
            producer.begin_transaction()
            for index, record in enumerate(records):
                producer.produce(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers),
                    on_delivery=partial(delivered, index),
                )
            producer.commit_transaction(self._commit_seconds)
        except (KafkaException, BufferError) as error:
            failed = error.with_traceback(None)  # else it and this frame would hold each other
        if failed is not None:
            # Outside of `except`: a call of the driver that raises there never lets go of the exception being handled
            # (confluent-kafka 2.16.1), nor of its frames, this producer, its threads and its sockets.
            self._abort(producer, failed)
        if failures or len(positions) != len(records):
            # commit_transaction flushes and fails when a record failed; this would be a defect of the library.
            self._producer = None
            raise ProducerFencedError(f"{len(records) - len(positions)} records were committed without a position")
        return [positions[index] for index in range(len(records))]

    def _abort(self, producer: Producer, error: KafkaException | BufferError) -> None:
        if isinstance(error, KafkaException) and _is_abortable(error):
            try:
                producer.abort_transaction(self._commit_seconds)
            except KafkaException as second:
                self._producer = None
                raise ProducerFencedError(f"the transaction could not be aborted: {_reason(second)}") from second
            raise UnavailableError(f"Kafka is not available: {_reason(error)}") from error
        # Fatal, or in doubt (a commit that timed out): only a new producer's init_transactions settles it.
        self._producer = None
        raise ProducerFencedError(f"this producer cannot send any more: {_reason(error)}") from error


def _is_abortable(error: KafkaException) -> bool:
    return bool(error.args[0].txn_requires_abort())


def _reason(error: BaseException) -> str:
    detail = error.args[0] if error.args else error
    return detail.str() if isinstance(detail, KafkaError) else str(detail)


def _on_error(error: KafkaError) -> None:
    _log.warning("kafka_client_error", code=error.name(), reason=error.str())


async def ensure_topics(client: Mapping[str, str], topics: Sequence[str]) -> None:
    """Create what is missing of ``topics``: one partition, kept for ever, never compacted.

    Raises:
        UnavailableError: the broker did not answer in time, or refused.
    """
    await asyncio.to_thread(_ensure_topics, client, topics)


def _ensure_topics(client: Mapping[str, str], topics: Sequence[str]) -> None:
    config: dict[str, Any] = {**client, "socket.timeout.ms": 5000, "error_cb": _on_error}
    admin = AdminClient(config, logger=logging.getLogger("librdkafka"))
    try:
        existing = admin.list_topics(timeout=ADMIN_TIMEOUT.total_seconds()).topics
        missing = [
            NewTopic(
                topic,
                num_partitions=1,  # one order for all
                replication_factor=-1,  # the broker's default: 1 embedded, 3 in a cluster
                config=TOPIC_SETTINGS,
            )
            for topic in topics
            if topic not in existing
        ]
        if not missing:
            return
        for topic, future in admin.create_topics(missing, request_timeout=ADMIN_TIMEOUT.total_seconds()).items():
            try:
                future.result(ADMIN_TIMEOUT.total_seconds())
                _log.info("topic_created", topic=topic)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
    except (KafkaException, TimeoutError) as error:
        raise UnavailableError(f"Kafka is not available: {_reason(error)}") from error
