"""Metrics of following: refused values by reason, contact, and what is obeyed."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class FollowingMetrics:
    """Counters and gauges of one follower, in one registry.

    Args:
        registry: where they are registered.
        prefix: of the metric names, e.g. ``policy_engine``.
        target: id of this replica, a label of each.
    """

    def __init__(self, registry: CollectorRegistry, *, prefix: str, target: str) -> None:
        self._target = target
        self._info = Gauge(
            f"{prefix}_constitution_info",
            "1 for the constitution that is obeyed; no series while there is none.",
            ["version", "checksum", "generation"],
            registry=registry,
        )
        self._refused = Counter(
            f"{prefix}_following_refused_total",
            "Answers, events and connections that changed nothing, by reason.",
            ["reason", "target"],
            registry=registry,
        )
        self._fetches = Counter(
            f"{prefix}_following_fetches_total",
            "Reads of the current constitution by outcome.",
            ["outcome", "target"],
            registry=registry,
        )
        self._contact = Gauge(
            f"{prefix}_following_last_contact_timestamp_seconds",
            "When constitution-service last confirmed what is obeyed; 0 before the first time.",
            ["target"],
            registry=registry,
        )
        self._contact.labels(target).set(0)
        self._expires = Gauge(
            f"{prefix}_constitution_expires_timestamp_seconds",
            "When the constitution that is obeyed expires; no series while there is none.",
            ["target"],
            registry=registry,
        )

    def obeys(self, *, version: str | None, checksum: str | None, generation: int) -> None:
        """Show what is obeyed now, and nothing else."""
        self._info.clear()
        if version is not None and checksum is not None:
            self._info.labels(version=version, checksum=checksum, generation=str(generation)).set(1)

    def expires(self, timestamp_s: float | None) -> None:
        """Show when what is obeyed expires (seconds since the epoch); None: nothing is obeyed."""
        self._expires.clear()
        if timestamp_s is not None:
            self._expires.labels(self._target).set(timestamp_s)

    def refused(self, reason: str) -> None:
        """Count something that changed nothing."""
        self._refused.labels(reason=reason, target=self._target).inc()

    def fetched(self, outcome: str) -> None:
        """Count a read: ``new``, ``same``, ``absent``, ``refused`` or ``unavailable``."""
        self._fetches.labels(outcome=outcome, target=self._target).inc()

    def contact(self, timestamp_s: float) -> None:
        """Show when the service last confirmed what is obeyed (seconds since the epoch)."""
        self._contact.labels(self._target).set(timestamp_s)
