"""Metrics of decisions. Tenants that the environment does not name count as ``other``: callers choose no labels."""

from collections.abc import Iterable

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
    """

    def __init__(self, registry: CollectorRegistry, *, tenants: Iterable[str], target: str) -> None:
        self._tenants = frozenset(tenants) | {PROBE_TENANT}
        self._target = target
        self._evaluations = Counter(
            "policy_engine_evaluations_total",
            "Decisions made.",
            ["decision", "severity", "tenant", "target"],
            registry=registry,
        )
        self._errors = Counter(
            "policy_engine_cel_errors_total",
            "CEL errors met while deciding.",
            ["target"],
            registry=registry,
        )
        self._seconds = Histogram(
            "policy_engine_evaluation_seconds",
            "Time to decide, without HTTP, in seconds.",
            ["target"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._errors.labels(target)  # both exist at zero from the start
        self._seconds.labels(target)

    def decided(self, decision: PolicyDecision, *, tenant: str, seconds: float) -> None:
        """Count one decision."""
        counted = tenant if tenant in self._tenants else OTHER_TENANT
        self._evaluations.labels(decision.decision, decision.severity, counted, self._target).inc()
        self._seconds.labels(self._target).observe(seconds)
        if decision.errors:
            self._errors.labels(self._target).inc(decision.errors)
