"""Metrics of constitution-service."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class ServiceMetrics:
    """Counters and gauges, in the app's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.loads = Counter(
            "constitution_loads", "Calls of load, by what came of them", ("kind", "result"), registry=registry
        )
        self.refusals = Counter("constitution_refusals", "Refused mutating calls", ("code",), registry=registry)
        self.generation = Gauge(
            "constitution_generation", "Highest generation that this process has proved", registry=registry
        )
        self.leader = Gauge("constitution_relay_leader", "1 while this process relays", registry=registry)
        self.pending = Gauge(
            "constitution_outbox_pending",
            "Outbox rows not yet on Kafka, as the relay last saw",
            ("stream",),
            registry=registry,
        )
        self.delivered = Counter("constitution_events_delivered", "Records sent", ("stream",), registry=registry)
        self.relay_failures = Counter(
            "constitution_relay_failures", "Rounds of the relay that failed", ("part",), registry=registry
        )
        self.current_reads = Counter(
            "constitution_current_reads",
            "Answers of GET /v1/constitution: from memory, confirmed by PostgreSQL for this very call, or stale",
            ("source",),
            registry=registry,
        )
        self.cache_writes = Counter(
            "constitution_cache_writes", "Values written to Redis, by why", ("reason",), registry=registry
        )
        self.spooled = Gauge("constitution_audit_spooled", "Audit events waiting on disk", registry=registry)
        self.dropped = Counter(
            "constitution_audit_dropped",
            "Audit events that neither PostgreSQL nor the spool took; who reported one was told",
            registry=registry,
        )
        self.unreadable = Counter(
            "constitution_audit_unreadable",
            "Files of the spool that hold no event; each is kept beside it, for a person",
            registry=registry,
        )
        self.suppressed = Counter(
            "constitution_audit_suppressed",
            "Refusals of anonymous callers, counted only",
            registry=registry,
        )
