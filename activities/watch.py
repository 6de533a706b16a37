"""Runbook step 4, second half: did ``policy_engine_evaluations_total`` change at or after publish?"""

from datetime import datetime

from temporalio import activity

from activities.failures import classified
from activities.ports import ConstitutionService, Deployment, Metrics
from constitution.checksum import Checksum
from constitution.environment import Strategy
from constitution.model import Model
from constitution.release import Verdict


class WatchInput(Model):
    """What to watch. ``generation`` and ``published_at`` are null before publish (``check_watch``).

    ``until_seconds`` is the watch's length counted from ``published_at``; ``tenants`` are those whose evaluations
    count (the probe tenant never does).
    """

    environment: str
    update_id: str
    generation: int | None
    published_at: datetime | None
    strategy: Strategy
    until_seconds: float
    tenants: tuple[str, ...]


class Preflight(Model):
    """Whether a watch could judge a release published now; ``verdict`` says why not."""

    ready: bool
    verdict: Verdict | None
    detail: str
    power: str


class WatchReport(Model):
    """The watch's word and what it rests on. ``ci`` is the confidence sequence of ``ratio``; null = unbounded."""

    verdict: Verdict
    detail: str
    decided_at: datetime
    ratio: float | None
    log_e: float | None
    ci: tuple[float | None, float | None]
    coverage: float
    samples: int
    query: str
    evidence: Checksum | None


class Watch:
    """Reads raw samples; stores its evidence as a blob; changes nothing else."""

    def __init__(self, *, metrics: Metrics, service: ConstitutionService, deployment: Deployment) -> None:
        self._metrics = metrics
        self._service = service
        self._deployment = deployment

    @activity.defn
    @classified
    async def check_watch(self, x: WatchInput) -> Preflight: ...
    @activity.defn
    @classified
    async def watch_metric(self, x: WatchInput) -> WatchReport: ...
