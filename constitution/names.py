"""Names in shared systems. ``NAMESPACE`` (empty in production) prefixes each, so environments can share servers."""

from dataclasses import dataclass

DEFAULT_RING = "default"
RUNBOOK = "constitution-runbook"
ASSESSOR = "constitution-assessor"


@dataclass(frozen=True, slots=True)
class Names:
    """Every name this product uses in Redis, Kafka and Temporal.

    Args:
        namespace: prefix; empty in production. Letters, digits and ``-`` only.
    """

    namespace: str = ""

    def __post_init__(self) -> None:
        if self.namespace and not all(c.isascii() and (c.isalnum() or c == "-") for c in self.namespace):
            raise ValueError(f"NAMESPACE may hold letters, digits and '-' only, not {self.namespace!r}")

    def _prefixed(self, separator: str, name: str) -> str:
        return f"{self.namespace}{separator}{name}" if self.namespace else name

    def topic_updated(self) -> str:
        """Kafka topic of release events."""
        return self._prefixed(".", "constitution.updated")

    def topic_audit(self) -> str:
        """Kafka topic of OCSF audit events."""
        return self._prefixed(".", "constitution.audit")

    def group(self, name: str) -> str:
        """Kafka consumer group, e.g. ``siem``."""
        return self._prefixed(".", name)

    def transactional_id(self) -> str:
        """Kafka transactional id that fences relays."""
        return self._prefixed(".", "constitution-relay")

    def redis_current(self, ring: str = DEFAULT_RING) -> str:
        """Redis key of a ring's current constitution: ``constitution:current`` for ring ``default``."""
        key = "constitution:current" if ring == DEFAULT_RING else f"constitution:current:{ring}"
        return self._prefixed(":", key)

    def redis_floor(self, ring: str = DEFAULT_RING, *, clustered: bool = False) -> str:
        """Redis key of the highest generation ever written for a ring; never deleted.

        In a cluster it lies where the ring's value lies, since one script writes both: what is in braces decides.
        Source: Redis cluster specification, "Hash tags".
        """
        return self._prefixed(":", f"constitution:floor:{f'{{{self.redis_current(ring)}}}' if clustered else ring}")

    def task_queue(self) -> str:
        """Temporal task queue of workflows and of the activities that act."""
        return self._prefixed("-", RUNBOOK)

    def assessor_queue(self) -> str:
        """Temporal task queue of the activities whose answers an assessor signs."""
        return self._prefixed("-", ASSESSOR)

    def update_id(self, environment: str, change_request: str) -> str:
        """Return the default workflow id of an update: one per change request."""
        return self._prefixed("/", f"constitution-update/{environment}/{change_request}")

    def rollback_id(self, environment: str, bad_generation: int) -> str:
        """Return the workflow id of the rollback of a generation; a second start attaches to the first."""
        return self._prefixed("/", f"constitution-rollback/{environment}/{bad_generation}")

    def guard_id(self, parent: str, run_id: str) -> str:
        """Return the workflow id of the guard of one run of ``parent`` (which carries its prefix already)."""
        return f"{parent}/guard/{run_id}"

    def reconcile_id(self, environment: str) -> str:
        """Return the id of the schedule that reconciles an environment, and the prefix of its runs' ids."""
        return self._prefixed("/", f"constitution-reconcile/{environment}")
