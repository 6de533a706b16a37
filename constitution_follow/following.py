"""Keeps a replica up to date while its program runs: by polling, and at once where something gives it hints.

Hints are an accelerator only. Their absence at the start, their end and their return are seen in ``ready``; the poll
goes on.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog
from prometheus_client import CollectorRegistry

from constitution.api import ReadyReport
from constitution.errors import UnavailableError
from constitution.names import DEFAULT_RING
from constitution_follow.fetch import ConstitutionSource
from constitution_follow.metrics import FollowingMetrics
from constitution_follow.outgoing import http_client
from constitution_follow.replica import Replica
from constitution_follow.tasks import end
from constitution_follow.trust_watch import TrustMetrics, watch_trust
from signatures.trust_holder import TrustHolder

_log = structlog.get_logger(__name__)


class Hints(Protocol):
    """Tells a replica at once that something was released (``Replica.hint``); the services' is Kafka."""

    async def give(self, replica: Replica, metrics: FollowingMetrics) -> None:
        """Give hints until cancelled. Never raises."""
        ...

    def trouble(self) -> str:
        """Return what is wrong with them, or nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Whom a replica follows, and how.

    Args:
        service: address of constitution-service.
        trust: holds the trust policy; it names the environment whose statements are obeyed.
        target: id of this replica.
        ring: whose releases are obeyed.
        poll_seconds: between two reads without a hint.
        max_staleness_seconds: without contact before the replica is stale.
    """

    service: str
    trust: TrustHolder
    target: str
    ring: str = DEFAULT_RING
    poll_seconds: float = 5.0
    max_staleness_seconds: float = 60.0


class Following:
    """A replica, what drives it, and how it is.

    Args:
        source: whom it follows.
        registry: where metrics go.
        prefix: of the metrics' names.
        hints: tell of releases at once; None: the poll is all.
    """

    def __init__(self, source: Source, registry: CollectorRegistry, *, prefix: str, hints: Hints | None = None) -> None:
        self._source = source
        self._hints = hints
        self._metrics = FollowingMetrics(registry, prefix=prefix, target=source.target)
        self._replica: Replica | None = None
        TrustMetrics(source.trust, registry)

    @property
    def replica(self) -> Replica:
        """The replica, while its program lives.

        Raises:
            UnavailableError: before the start and after the end.
        """
        if self._replica is None:
            raise UnavailableError("nothing is followed: the program has not begun, or has ended")
        return self._replica

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Replica]:
        """Follow until the block ends. Entering never waits for a server: ``ready`` tells when it may serve."""
        source = self._source
        async with http_client() as client:
            replica = Replica(
                source=ConstitutionSource(client, base_url=source.service, ring=source.ring),
                trust=source.trust,
                environment=source.trust.policy.environment,
                target=source.target,
                ring=source.ring,
                max_staleness_s=source.max_staleness_seconds,
                metrics=self._metrics,
            )
            self._replica = replica
            tasks = [
                asyncio.create_task(self._poll(replica), name="poll"),
                asyncio.create_task(watch_trust(source.trust), name="trust"),
            ]
            if self._hints is not None:
                tasks.append(asyncio.create_task(self._hints.give(replica, self._metrics), name="hints"))
            try:
                yield replica
            finally:
                for task in tasks:
                    await end(task)
                self._replica = None

    async def ready(self) -> ReadyReport:
        """Answer ``/readyz``: unavailable until current was read; degraded says why; else ok."""
        if self._replica is None:
            return ReadyReport(status="unavailable", checks={"constitution": "not running"})
        status = self._replica.status()
        checks: dict[str, str] = {"constitution": status.state}
        if self._hints is not None:
            checks["kafka"] = self._hints.trouble() or "ok"
        if self._source.trust.refused:
            checks["trust"] = self._source.trust.refused
        if status.state == "starting":
            checks["constitution"] = f"not yet read: {status.last_error or 'asking'}"
            return ReadyReport(status="unavailable", checks=checks)
        if status.state == "no_constitution":
            checks["constitution"] = f"no constitution in force at generation {status.generation}: all is denied"
        elif status.state == "stale":
            checks["constitution"] = f"no contact since {status.last_contact_at}: {status.last_error}"
        degraded = status.state != "live" or checks.get("kafka", "ok") != "ok" or "trust" in checks
        return ReadyReport(status="degraded" if degraded else "ok", checks=checks)

    async def _poll(self, replica: Replica) -> None:
        while True:
            try:
                await replica.poll()
            except Exception:  # a defect in one read must not end the following  # noqa: BLE001 - logged with trace
                _log.exception("poll_failed", target=self._source.target)
            await asyncio.sleep(self._source.poll_seconds)
