"""The context that every part of the service gets: the environment, the servers, the key. Built once in app.py."""

from dataclasses import dataclass
from datetime import timedelta

from fastapi import Request

from adapters.artifact_store import ArtifactStore
from adapters.environment_config import EnvironmentConfig
from adapters.postgres import Database
from adapters.redis_cache import ConstitutionCache
from constitution.names import Names
from constitution.trust.trust_policy import TrustPolicy
from services.constitution_service.generations.guard import GenerationGuard
from services.constitution_service.generations.sources import ReleaseSources
from services.constitution_service.metrics import ServiceMetrics
from services.constitution_service.serving.memory import Memory
from services.constitution_service.spool import Spool
from services.constitution_service.statement_key import StatementKey

LEASE_TTL = timedelta(minutes=15)
"""Longer than any restart of a worker takes, and short enough to wait for; ``LEASE_SECONDS``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """See the module.

    Args:
        process: names this process in leases, logs and delivery records.
        lease_ttl: after so long without a sign of life a lease has ended.
    """

    config: EnvironmentConfig
    names: Names
    database: Database
    cache: ConstitutionCache
    store: ArtifactStore
    key: StatementKey
    spool: Spool
    metrics: ServiceMetrics
    process: str
    sources: ReleaseSources
    generation_guard: GenerationGuard
    memory: Memory
    lease_ttl: timedelta = LEASE_TTL

    @property
    def environment(self) -> str:
        """Name of the environment."""
        return self.config.name

    @property
    def trust(self) -> TrustPolicy:
        """Whom this service trusts."""
        return self.config.trust


def context(request: Request) -> Context:
    """FastAPI dependency: the service's context."""
    found: Context = request.app.state.context
    return found
