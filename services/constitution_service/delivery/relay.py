"""The relay: writes each committed release to Redis, Kafka and the artifact store, in generation order (invariant 2).

Audit events it numbers (``audit_numbers.py``) and sends.

Every process of the service runs one; the row in ``relay_leases`` says which one works. Five loops that do not wait
for each other: the election, a listener that wakes the rest on NOTIFY, the writer of the Redis values, the sender of
events, the writer of signed records. So a dead Kafka does not keep Redis old, and a dead Redis or artifact store
delays an event by at most a second. While PostgreSQL is known to have lost releases, nothing is sent.

Killed between commit and delivery: the row is still there, and the next relay sends it under the same event id.
Stopped and woken late: Kafka refuses the old transactional producer, Redis the old generation (invariant 6).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import groupby

import structlog

from adapters.kafka_producer import FencedProducer, ProducerFencedError, ensure_topics
from constitution.errors import UnavailableError
from services.constitution_service.context import Context
from services.constitution_service.delivery import record_writer
from services.constitution_service.delivery.audit_numbers import AUDIT_BATCH, STORE_HEAD_START, AuditNumbers
from services.constitution_service.delivery.cache_writer import CacheWriter
from services.constitution_service.errors import RecordConflictError
from services.constitution_service.tables import outbox, relay_lease, releases

POLL = timedelta(milliseconds=500)  # how long a lost NOTIFY can delay
LOOK = timedelta(seconds=1)  # how long a deleted or forged Redis value can stay, while nobody reads it
REDIS_HEAD_START = timedelta(seconds=1)  # an event waits at most this long for Redis, and for the store meanwhile
PAUSE_AFTER_FAILURE = timedelta(seconds=1)
GENERATIONS_A_ROUND = 50  # bounds what one round holds in memory

_log = structlog.get_logger(__name__)


class Relay:
    """Runs inside the service's lifespan.

    Args:
        context: of the service.
        kafka: connection part of librdkafka's configuration.
    """

    def __init__(self, context: Context, kafka: dict[str, str]) -> None:
        self._context = context
        self._kafka = kafka
        self._cache_writer = CacheWriter(context)
        self._audit_numbers = AuditNumbers(context)
        self._epoch: int | None = None
        self._until = 0.0  # time.monotonic() at which the right ends, unless it was renewed
        self._producer: FencedProducer | None = None
        self._wake_sender = asyncio.Event()
        self._wake_cache_writer = asyncio.Event()
        self._wake_record_writer = asyncio.Event()

    @property
    def leading(self) -> bool:
        """Whether this process relays; a process that was stopped knows by its clock that its right has ended."""
        return self._epoch is not None and time.monotonic() < self._until

    async def run(self) -> None:
        """Work until cancelled; gives the right to relay back on the way out."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._forever("election", self._elect, None, relay_lease.RENEWAL))
                tasks.create_task(self._forever("listener", self._listen, None, PAUSE_AFTER_FAILURE))
                tasks.create_task(self._forever("cache writer", self._write_cache, self._wake_cache_writer, LOOK))
                tasks.create_task(self._forever("sender", self._send, self._wake_sender, POLL))
                tasks.create_task(self._forever("record writer", self._write_records, self._wake_record_writer, LOOK))
        finally:
            await asyncio.shield(self._leave())

    async def _forever(
        self, part: str, work: Callable[[], Awaitable[None]], woken: asyncio.Event | None, pause: timedelta
    ) -> None:
        while True:
            if woken is not None:
                woken.clear()  # before the work: what is committed during it wakes the next round
            wait = pause
            try:
                await work()
            except UnavailableError as error:
                self._context.metrics.relay_failures.labels(part).inc()
                _log.warning("relay_waits", part=part, reason=error.message)
                wait = max(pause, PAUSE_AFTER_FAILURE)
            except Exception:  # noqa: BLE001 - one round's defect must not end the relay; it is logged and counted
                self._context.metrics.relay_failures.labels(part).inc()
                _log.exception("relay_failed", part=part)
                wait = max(pause, PAUSE_AFTER_FAILURE)
            await _sleep(woken, wait)

    # --- who works

    async def _elect(self) -> None:
        context = self._context
        asked = time.monotonic()
        try:
            async with context.database.connection() as connection:
                epoch = await relay_lease.renew(connection, context.environment, context.process)
        except UnavailableError:
            self._lead(None)  # the row may have expired; the process that can write it works
            raise
        self._until = asked + relay_lease.TTL.total_seconds()
        self._lead(epoch)

    def _lead(self, epoch: int | None) -> None:
        if epoch != self._epoch:
            _log.info("relay_elected" if epoch is not None else "relay_yields", epoch=epoch)
            self._drop_producer()  # a new epoch fences with a new producer
            self._audit_numbers.heads.forget()
            self._epoch = epoch
            self._wake_sender.set()
            self._wake_cache_writer.set()
            self._wake_record_writer.set()
        self._context.metrics.leader.set(0 if epoch is None else 1)

    async def _listen(self) -> None:
        async with self._context.database.listening(outbox.CHANNEL) as listener:
            while True:
                await listener.wait()
                self._wake_cache_writer.set()
                self._wake_sender.set()
                self._wake_record_writer.set()

    async def _leave(self) -> None:
        self._drop_producer()
        try:
            async with self._context.database.connection() as connection:
                await relay_lease.give_back(connection, self._context.environment, self._context.process)
        except UnavailableError:
            _log.warning("relay_right_not_given_back")  # it ends by itself

    # --- Redis

    async def _write_cache(self) -> None:
        if self.leading and self._context.generation_guard.behind is None:
            await self._cache_writer.round()

    # --- artifact store

    async def _write_records(self) -> None:
        if self.leading:
            await self._audit_numbers.heads.write()  # what the head start did not suffice for
        while self.leading and self._context.generation_guard.behind is None:
            if not await record_writer.round_of_records(self._context):
                return

    # --- Kafka

    async def _send(self) -> None:
        if not self.leading:
            return
        await self._open_producer()  # before there is anything to send: consumers wait for the topics that it makes
        sent = await self._send_updates()
        if sent:
            await self._send_audits()

    async def _send_updates(self) -> bool:
        context = self._context
        if context.generation_guard.behind is not None:
            return True  # a waiting event may be on the topic already, before releases that this database has lost
        async with context.database.connection() as connection:
            rows = await outbox.pending(connection, context.environment, GENERATIONS_A_ROUND)
        context.metrics.pending.labels("updated").set(len(rows))
        for generation, group in groupby(rows, key=lambda row: row.generation):
            if not self.leading:
                return False
            if generation is not None:
                await asyncio.gather(self._redis_first(generation), self._write_record_first(generation))
            await self._deliver("updated", list(group))
            _log.info("event_delivered", generation=generation)
        return True

    async def _redis_first(self, generation: int) -> None:
        context = self._context
        try:
            async with asyncio.timeout(REDIS_HEAD_START.total_seconds()):
                async with context.database.connection() as connection:
                    release = await releases.read_release(connection, context.environment, generation)
                if release is not None and release.delivery.redis_at is None:
                    await self._cache_writer.publish(generation, release.rings)
        except (UnavailableError, TimeoutError) as error:
            _log.warning("event_before_redis", generation=generation, reason=str(error) or "no answer in time")

    async def _write_record_first(self, generation: int) -> None:
        """Have the store take the release before its event is sent; a silent store is tried again apart."""
        try:
            async with asyncio.timeout(STORE_HEAD_START.total_seconds()):
                await record_writer.store(self._context, generation)
        except (UnavailableError, RecordConflictError, TimeoutError) as error:
            _log.warning("event_before_record", generation=generation, reason=str(error) or "no answer in time")

    async def _send_audits(self) -> None:
        while self.leading and self._epoch is not None:
            rows = await self._audit_numbers.batch(self._epoch)
            self._context.metrics.pending.labels("audit").set(len(rows))
            if not rows:
                return
            await self._deliver("audit", rows)
            if len(rows) < AUDIT_BATCH or self._wake_sender.is_set():
                return  # a release that was committed meanwhile goes first

    async def _deliver(self, stream: outbox.Stream, rows: list[outbox.Pending]) -> None:
        context = self._context
        topic = context.names.topic_updated() if stream == "updated" else context.names.topic_audit()
        producer = self._producer
        if producer is None or not self.leading:  # since these rows were read, another process may have sent them
            raise UnavailableError("another process relays now, or did since")
        try:
            positions = await producer.send([row.message(topic) for row in rows])
        except ProducerFencedError:
            self._drop_producer()
            raise
        async with context.database.transaction() as connection:
            await outbox.mark_delivered(connection, rows, positions)
        context.metrics.delivered.labels(stream).inc(len(rows))

    async def _open_producer(self) -> None:
        if self._producer is not None:
            return
        await self._elect()  # only a proved right may fence the others
        if not self.leading:
            raise UnavailableError("another process relays now")
        names = self._context.names
        await ensure_topics(self._kafka, [names.topic_updated(), names.topic_audit()])
        producer = FencedProducer(self._kafka, names.transactional_id())
        try:
            await producer.open()
        except UnavailableError:
            producer.close()
            raise
        self._producer = producer

    def _drop_producer(self) -> None:
        if self._producer is not None:
            self._producer.close()
            self._producer = None


async def _sleep(woken: asyncio.Event | None, pause: timedelta) -> None:
    if woken is None:
        await asyncio.sleep(pause.total_seconds())
        return
    try:
        async with asyncio.timeout(pause.total_seconds()):
            await woken.wait()
    except TimeoutError:
        return
