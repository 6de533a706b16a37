"""Metrics of decisions. Tenants that the environment does not name count as ``other``: callers choose no labels."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

from constitution.policy.consumer_api import PROBE_TENANT
from constitution.policy.evaluation import PolicyDecision

OTHER_TENANT = "other"
BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)  # seconds; typical: 0.0001


class DecisionMetrics:
    """What the watch counts.

    Args:
        tenants: of the environment.
        target: id of this replica.
        prefix: of the metrics' names. The watch reads ``policy_engine``: whoever decides so is watched like an engine.
    """

    def __init__(
        self, registry: CollectorRegistry, *, tenants: Iterable[str], target: str, prefix: str = "policy_engine"
    ) -> None:
        self._tenants = frozenset(tenants) | {PROBE_TENANT}
        self._target = target
        self._evaluations = Counter(
            f"{prefix}_evaluations_total",
            "Decisions made.",
            ["decision", "severity", "tenant", "target"],
            registry=registry,
        )
        self._errors = Counter(
            f"{prefix}_cel_errors_total",
            "CEL errors met while deciding.",
            ["target"],
            registry=registry,
        )
        self._seconds = Histogram(
            f"{prefix}_evaluation_seconds",
            "Time to decide, without HTTP, in seconds.",
            ["target"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._count_errors = self._errors.labels(target).inc  # both exist at zero from the start
        self._observe = self._seconds.labels(target).observe
        self._series: dict[tuple[str, str, str], Callable[[], None]] = {}  # looking labels up costs more than counting

    def decided(self, decision: PolicyDecision, *, tenant: str, seconds: float) -> None:
        """Count one decision."""
        counted = tenant if tenant in self._tenants else OTHER_TENANT
        key = (decision.decision.value, decision.severity, counted)
        count = self._series.get(key)
        if count is None:
            count = self._series[key] = self._evaluations.labels(*key, self._target).inc
        count()
        self._observe(seconds)
        if decision.errors:
            self._count_errors(decision.errors)
