"""Moves records from both topics to the sink. At least once: an offset is committed after the sink has acknowledged.

A crash between acknowledgement and commit sends the batch again; ``metadata.uid`` is the same, so that a SIEM drops the
second copy. A sink that is down is tried again for ever with a growing pause, and ``/readyz`` and the metrics say so;
the records wait on the topics meanwhile.
"""

import asyncio
import time
from collections.abc import Sequence

import stamina
import structlog

from adapters.kafka_consumer import ConsumedMessage, KafkaConsumer
from constitution.api import ReadyReport
from constitution.errors import UnavailableError
from services.siem_forwarder.metrics import ForwarderMetrics
from services.siem_forwarder.quarantine import TOO_LARGE
from services.siem_forwarder.sinks.sink import Event, Sink, SinkError
from services.siem_forwarder.translate import Translator

BATCH = 500  # records
READ_SECONDS = 0.5
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 15.0
TROUBLE_SECONDS = 20.0  # librdkafka reports a broker that stays away at least every ten seconds

_log = structlog.get_logger(__name__)


class Forwarder:
    """Consumer, translator and sink, joined.

    Args:
        consumer: not started yet; closed by ``run``.
        sink: closed by ``run``.
    """

    def __init__(self, consumer: KafkaConsumer, translator: Translator, sink: Sink, metrics: ForwarderMetrics) -> None:
        self._consumer = consumer
        self._translator = translator
        self._sink = sink
        self._metrics = metrics
        self._assigned = False
        self._sink_error = ""
        self._trouble = ""
        self._trouble_monotonic = 0.0
        self._ended = ""

    def assigned(self, partitions: int) -> None:
        """Note that the group assigned partitions (consumer's thread)."""
        self._assigned = True
        self._trouble = ""
        _log.info("partitions_assigned", partitions=partitions)

    def troubled(self, message: str) -> None:
        """Note an error of the connection to Kafka (consumer's thread)."""
        if message != self._trouble or time.monotonic() - self._trouble_monotonic >= TROUBLE_SECONDS:
            _log.warning("kafka_trouble", detail=message)
        self._trouble, self._trouble_monotonic = message, time.monotonic()

    async def ready(self) -> ReadyReport:
        """Answer ``/readyz``: the sink must have acknowledged the last attempt, and the group must have us."""
        kafka = self._trouble if time.monotonic() - self._trouble_monotonic < TROUBLE_SECONDS else ""
        checks = {
            "kafka": kafka or ("ok" if self._assigned else "no partitions yet"),
            "sink": self._sink_error or "ok",
        }
        if self._ended:
            checks["forwarding"] = self._ended
        well = not self._ended and self._assigned and not kafka and not self._sink_error
        return ReadyReport(status="ok" if well else "unavailable", checks=checks)

    async def run(self) -> None:
        """Forward until cancelled. Ends otherwise only by a defect, which ``/readyz`` then shows."""
        try:
            await self._consumer.start(on_trouble=self.troubled, on_assigned=self.assigned)
            while True:
                records = await self._consumer.read(BATCH, READ_SECONDS)
                if records:
                    await self._forward(records)
                for (topic, partition), ahead in (await self._consumer.backlog()).items():
                    self._metrics.backlog.labels(topic, str(partition)).set(ahead)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the last frame of the task: readiness must say why it ended
            self._ended = f"ended by {type(error).__name__}: {error}"
            _log.exception("forwarding_ended")
            raise
        finally:
            await self._consumer.close()
            await self._sink.close()

    async def _forward(self, records: Sequence[ConsumedMessage]) -> None:
        translated = await asyncio.to_thread(lambda: [self._translator.translate(record) for record in records])
        too_large = {id(event) for event in await self._deliver([item.event for item in translated])}
        for record, item in zip(records, translated, strict=True):
            self._metrics.forwarded.labels(record.topic).inc()
            why = TOO_LARGE if id(item.event) in too_large else item.refused
            if why:
                self._metrics.quarantined.labels(record.topic).inc()
                _log.warning(
                    "record_quarantined",
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    why=why,
                )
        try:
            await self._consumer.commit(records)
        except UnavailableError as error:
            self._metrics.commit_failures.inc()
            _log.warning("commit_failed", detail=error.message)  # a later commit covers it, or they come again

    async def _deliver(self, events: Sequence[Event]) -> Sequence[Event]:
        too_large: Sequence[Event] = ()
        async for attempt in stamina.retry_context(
            on=SinkError,
            attempts=None,
            timeout=None,
            wait_initial=FIRST_PAUSE_SECONDS,
            wait_max=LONGEST_PAUSE_SECONDS,
        ):
            with attempt:
                try:
                    too_large = await self._sink.deliver(events)
                except SinkError as error:
                    self._metrics.failures.inc()
                    self._metrics.sink_up.set(0)
                    self._sink_error = error.message
                    _log.warning("sink_failed", attempt=attempt.num, events=len(events), detail=error.message)
                    raise
        self._sink_error = ""
        self._metrics.sink_up.set(1)
        self._metrics.acknowledged_at.set(time.time())
        return too_large
