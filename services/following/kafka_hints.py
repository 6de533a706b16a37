"""Hints from Kafka: each replica reads ``constitution.updated`` as a group of its own, from the end of the topic.

Earlier releases are in the replica's first read. Kafka's absence, death and return are seen in ``trouble``.
"""

import asyncio
import time

import structlog

from adapters.kafka_consumer import KafkaConsumer
from constitution.names import Names
from constitution_follow.metrics import FollowingMetrics
from constitution_follow.replica import Replica

TROUBLE_SECONDS = 20.0  # librdkafka reports a broker that stays away at least every ten seconds
READ_SECONDS = 0.5
READ_LIMIT = 100

_log = structlog.get_logger(__name__)


class KafkaHints:
    """Gives one replica hints.

    Args:
        kafka: connection part of librdkafka's configuration.
        names: of topic and group.
        target: id of the replica.
    """

    def __init__(self, kafka: dict[str, str], names: Names, target: str) -> None:
        self._kafka = kafka
        self._names = names
        self._target = target
        self._trouble = ""
        self._trouble_monotonic = 0.0
        self._metrics: FollowingMetrics | None = None

    def trouble(self) -> str:
        """Return the last error of the Kafka connection, or nothing when there was none for a while."""
        return self._trouble if time.monotonic() - self._trouble_monotonic < TROUBLE_SECONDS else ""

    async def give(self, replica: Replica, metrics: FollowingMetrics) -> None:
        """Listen until cancelled."""
        self._metrics = metrics
        assigned = asyncio.Event()
        loop = asyncio.get_running_loop()
        consumer = KafkaConsumer(
            self._kafka,
            group=self._names.group(self._target),
            topics=[self._names.topic_updated()],
            start="latest",
        )
        await consumer.start(
            on_trouble=self._complain,
            on_assigned=lambda partitions: self._assigned(partitions, loop, assigned),
        )
        try:
            while True:
                records = await consumer.read(READ_LIMIT, READ_SECONDS)
                if assigned.is_set():
                    assigned.clear()
                    await replica.poll()  # what was released before the first hint could arrive
                for record in records:
                    await self._hint(replica, record.value, metrics)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # polling goes on without hints  # noqa: BLE001 - logged, and shown in /readyz
            _log.exception("listening_failed", target=self._target)
            self._complain(f"listening ended: {error}")
            self._trouble_monotonic = float("inf")
        finally:
            await consumer.close()

    async def _hint(self, replica: Replica, value: bytes | None, metrics: FollowingMetrics) -> None:
        try:
            await replica.hint(value)
        except Exception:  # noqa: BLE001 - one record must not end the listening; logged with its trace
            metrics.refused("defect")
            _log.exception("hint_failed", target=self._target)

    def _complain(self, message: str) -> None:
        if message != self._trouble or not self.trouble():
            _log.warning("kafka_trouble", target=self._target, detail=message)
        if self._metrics is not None:
            self._metrics.refused("kafka")
        self._trouble, self._trouble_monotonic = message, time.monotonic()

    def _assigned(self, partitions: int, loop: asyncio.AbstractEventLoop, assigned: asyncio.Event) -> None:
        if partitions:
            self._trouble = ""
            loop.call_soon_threadsafe(assigned.set)
