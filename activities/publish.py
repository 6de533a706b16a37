"""Runbook step 3: the lease, the load, and the proof by independent read-back."""

from datetime import datetime

from temporalio import activity

from activities.failures import classified
from activities.ports import Cache, ConstitutionService, Deployment, EventLog, Ledger
from activities.subject import Subject
from constitution.api import Lease
from constitution.checksum import Checksum
from constitution.model import Model
from constitution.release import DeliveredEvent, Envelope, Kind, Standing, Verdict


class LeaseInput(Model):
    """Who wants the lease."""

    environment: str
    update_id: str
    kind: Kind
    workflow_id: str


class ReleaseLeaseInput(Model):
    """Who gives the lease back; an old token changes nothing."""

    environment: str
    update_id: str
    fencing_token: int


class LoadInput(Model):
    """What to put live, by whose approval."""

    subject: Subject
    evidence: Checksum
    envelopes: tuple[Envelope, ...]
    fencing_token: int
    expected_generation: int


class Published(Model):
    """A committed release; ``version`` and ``checksum`` are null after a withdraw."""

    generation: int
    version: str | None
    checksum: Checksum | None
    event_id: str
    effective_at: datetime


class ProveInput(Model):
    """Which release to prove."""

    environment: str
    generation: int
    checksum: Checksum | None
    event_id: str
    rings: tuple[str, ...]
    effective_at: datetime


class Proof(Model):
    """What Postgres, Redis and Kafka say, each asked itself. ``partition``/``offset`` are the first tenant's event."""

    generation: int
    checksum: Checksum | None
    postgres: str
    redis: str
    partition: int
    offset: int
    events: tuple[DeliveredEvent, ...]
    repaired: bool


class StandingInput(Model):
    """What became of a release."""

    environment: str
    generation: int
    standing: Standing
    verdict: Verdict | None = None
    reason: str
    update_id: str
    fencing_token: int


class StandingResult(Model):
    """The release's latest standing, as recorded."""

    generation: int
    standing: Standing


class Publish:
    """Makes a release, and proves it without trusting who made it."""

    def __init__(
        self,
        *,
        service: ConstitutionService,
        ledger: Ledger,
        cache: Cache,
        events: EventLog,
        deployment: Deployment,
    ) -> None:
        self._service = service
        self._ledger = ledger
        self._cache = cache
        self._events = events
        self._deployment = deployment

    @activity.defn
    @classified
    async def acquire_lease(self, x: LeaseInput) -> Lease: ...
    @activity.defn
    @classified
    async def release_lease(self, x: ReleaseLeaseInput) -> None: ...
    @activity.defn
    @classified
    async def load_release(self, x: LoadInput) -> Published: ...
    @activity.defn
    @classified
    async def prove_published(self, x: ProveInput) -> Proof: ...
    @activity.defn
    @classified
    async def record_standing(self, x: StandingInput) -> StandingResult: ...
