"""Metrics of forwarding."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class ForwarderMetrics:
    """Counters and gauges of the forwarder, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.forwarded = Counter(
            "siem_forwarder_events_total", "Events that the sink acknowledged.", ["topic"], registry=registry
        )
        self.quarantined = Counter(
            "siem_forwarder_quarantined_total", "Records forwarded as findings.", ["topic"], registry=registry
        )
        self.failures = Counter(
            "siem_forwarder_sink_failures_total", "Attempts that the sink did not acknowledge.", registry=registry
        )
        self.commit_failures = Counter(
            "siem_forwarder_commit_failures_total", "Offsets that Kafka did not take; sent again.", registry=registry
        )
        self.backlog = Gauge(
            "siem_forwarder_backlog_offsets",
            "Offsets ahead, commit markers included.",
            ["topic", "partition"],
            registry=registry,
        )
        self.acknowledged_at = Gauge(
            "siem_forwarder_last_acknowledged_timestamp_seconds",
            "When the sink last acknowledged; 0 before the first time.",
            registry=registry,
        )
        self.sink_up = Gauge("siem_forwarder_sink_up", "1 unless the last attempt failed.", registry=registry)
        self.sink_up.set(1)
