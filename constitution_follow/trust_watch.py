"""Keeps the trust policy of a running process up to date, and tells how it is."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime

import structlog
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from constitution.trust.trust_policy import TrustPolicy
from signatures.trust_holder import TrustHolder

LOOK_SECONDS = 2.0
"""Between two looks at the folder: a version is in force so long after it was installed."""

_log = structlog.get_logger(__name__)


async def watch_trust(
    holder: TrustHolder,
    taken: Callable[[TrustPolicy], Awaitable[None]] | None = None,
    refused: Callable[[str], Awaitable[None]] | None = None,
) -> None:
    """Look until cancelled.

    Args:
        holder: of the policy.
        taken: is told of each version that was taken.
        refused: is told why something in the folder was refused, once.
    """
    refusals = holder.refusals
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        policy = await asyncio.to_thread(holder.look, datetime.now(UTC))
        if policy is not None:
            _log.info("trust_policy_taken", version=policy.version, checksum=policy.checksum)
            if taken is not None:
                await taken(policy)
        if holder.refusals != refusals:
            refusals = holder.refusals
            _log.error("trust_policy_refused", in_force=holder.policy.version, reason=holder.refused)
            if refused is not None:
                await refused(holder.refused)


class TrustMetrics(Collector):
    """``trust_policy_version`` and ``trust_policy_refused_total``."""

    def __init__(self, holder: TrustHolder, registry: CollectorRegistry) -> None:
        self._holder = holder
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Return both as they are now."""
        yield GaugeMetricFamily(
            "trust_policy_version", "Version of the trust policy in force", value=self._holder.policy.version
        )
        yield CounterMetricFamily(
            "trust_policy_refused",
            "Trust policies beside trust.toml that do not follow the one in force",
            value=self._holder.refusals,
        )
