"""Keeps a follower up to date while its service runs: by hints from Kafka, and by polling.

Kafka is an accelerator only. Its absence at the start, its death and its return are seen in ``trouble()``; the poll
goes on. Each replica reads as a group of its own from the end of the topic: earlier releases are in the first read.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from prometheus_client import CollectorRegistry

from adapters.environment_config import EnvironmentConfig
from adapters.kafka_consumer import KafkaConsumer
from constitution.api import ReadyReport
from constitution.errors import UnavailableError
from constitution.names import Names
from services.common.outgoing import http_client
from services.common.tasks import end
from services.following.fetch import ConstitutionSource
from services.following.follower import Follower
from services.following.metrics import FollowingMetrics
from services.following.settings import FollowingSettings

TROUBLE_SECONDS = 20.0  # librdkafka reports a broker that stays away at least every ten seconds
READ_SECONDS = 0.5
READ_LIMIT = 100

_log = structlog.get_logger(__name__)


class Following:
    """A follower, what drives it, and how it is.

    Args:
        settings: of the service.
        config: environment and trust policy.
        registry: where metrics go.
        prefix: of the metrics' names.
    """

    def __init__(
        self, settings: FollowingSettings, config: EnvironmentConfig, registry: CollectorRegistry, *, prefix: str
    ) -> None:
        self._settings = settings
        self._config = config
        self._metrics = FollowingMetrics(registry, prefix=prefix, target=settings.target_id)
        self._follower: Follower | None = None
        self._trouble = ""
        self._trouble_monotonic = 0.0

    @property
    def follower(self) -> Follower:
        """The follower, while the service lives.

        Raises:
            UnavailableError: before the start and after the end.
        """
        if self._follower is None:
            raise UnavailableError("the service is not running")
        return self._follower

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Follower]:
        """Follow until the block ends. Entering never waits for a server: ``/readyz`` tells when it may serve."""
        async with http_client() as client:
            follower = Follower(
                source=ConstitutionSource(
                    client, base_url=self._settings.constitution_service_url, ring=self._settings.ring
                ),
                trust=self._config.trust,
                environment=self._config.name,
                target=self._settings.target_id,
                ring=self._settings.ring,
                max_staleness_s=self._settings.max_staleness_seconds,
                metrics=self._metrics,
            )
            self._follower = follower
            tasks = [
                asyncio.create_task(self._poll(follower), name="poll"),
                asyncio.create_task(self._listen(follower), name="listen"),
            ]
            try:
                yield follower
            finally:
                for task in tasks:
                    await end(task)
                self._follower = None

    def trouble(self) -> str:
        """Return the last error of the Kafka connection, or nothing when there was none for a while."""
        return self._trouble if time.monotonic() - self._trouble_monotonic < TROUBLE_SECONDS else ""

    async def ready(self) -> ReadyReport:
        """Answer ``/readyz``: unavailable until current was read; degraded says why; else ok."""
        if self._follower is None:
            return ReadyReport(status="unavailable", checks={"constitution": "not running"})
        status = self._follower.status()
        checks = {"constitution": status.state, "kafka": self.trouble() or "ok"}
        if status.state == "starting":
            checks["constitution"] = f"not yet read: {status.last_error or 'asking'}"
            return ReadyReport(status="unavailable", checks=checks)
        if status.state == "no_constitution":
            checks["constitution"] = f"no constitution in force at generation {status.generation}: all is denied"
        elif status.state == "stale":
            checks["constitution"] = f"no contact since {status.last_contact_at}: {status.last_error}"
        degraded = status.state != "live" or checks["kafka"] != "ok"
        return ReadyReport(status="degraded" if degraded else "ok", checks=checks)

    async def _poll(self, follower: Follower) -> None:
        while True:
            try:
                await follower.poll()
            except Exception:  # a defect in one read must not end the following  # noqa: BLE001 - logged with trace
                _log.exception("poll_failed", target=self._settings.target_id)
            await asyncio.sleep(self._settings.poll_seconds)

    async def _listen(self, follower: Follower) -> None:
        names = Names(self._settings.namespace)
        assigned = asyncio.Event()
        loop = asyncio.get_running_loop()
        consumer = KafkaConsumer(
            self._settings.kafka_client(),
            group=names.group(self._settings.target_id),
            topics=[names.topic_updated()],
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
                    await follower.poll()  # what was released before the first hint could arrive
                for record in records:
                    await self._hint(follower, record.value)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # polling goes on without hints  # noqa: BLE001 - logged, and shown in /readyz
            _log.exception("listening_failed", target=self._settings.target_id)
            self._complain(f"listening ended: {error}")
            self._trouble_monotonic = float("inf")
        finally:
            await consumer.close()

    async def _hint(self, follower: Follower, value: bytes | None) -> None:
        try:
            await follower.hint(value)
        except Exception:  # noqa: BLE001 - one record must not end the listening; logged with its trace
            self._metrics.refused("defect")
            _log.exception("hint_failed", target=self._settings.target_id)

    def _complain(self, message: str) -> None:
        if message != self._trouble or not self.trouble():
            _log.warning("kafka_trouble", target=self._settings.target_id, detail=message)
        self._metrics.refused("kafka")
        self._trouble, self._trouble_monotonic = message, time.monotonic()

    def _assigned(self, partitions: int, loop: asyncio.AbstractEventLoop, assigned: asyncio.Event) -> None:
        if partitions:
            self._trouble = ""
            loop.call_soon_threadsafe(assigned.set)
