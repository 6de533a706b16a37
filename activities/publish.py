"""Runbook step 3: the lease, the load, and the proof by independent read-back."""

import asyncio
from datetime import datetime

from temporalio import activity

from activities.failures import classified
from activities.keys import require_environment, step_key
from activities.ports import ActivityConfig, Cache, ConstitutionService, EventLog, Ledger
from activities.update_plan import UpdatePlan
from constitution.api import (
    Lease,
    LeaseRelease,
    LeaseRequest,
    LoadRequest,
    LoadResult,
    WorkflowRef,
)
from constitution.checksum import Checksum
from constitution.errors import ConflictError, NotYetError, UntrustedError
from constitution.model import Model
from constitution.release import DeliveredEvent, Envelope, Kind
from signatures.current import read_current


class LeaseInput(Model):
    """Who wants the lease; with ``own_only`` it is taken from nobody but an earlier run of the same update id.

    ``undoes``: the generation that a rollback is for; while that is not live, no other update loses the lease.
    ``approvals``: the board's, where they are what a rollback rests on.
    ``lost``: the token that was refused, when the lease is taken anew.
    """

    environment: str
    update_id: str
    kind: Kind
    workflow_id: str
    own_only: bool = False
    undoes: int | None = None
    approvals: tuple[Envelope, ...] = ()
    lost: int | None = None


class ReleaseLeaseInput(Model):
    """Who gives the lease back; an old token changes nothing."""

    environment: str
    update_id: str
    fencing_token: int


class LoadInput(Model):
    """The release to put live, with its approvals."""

    update: UpdatePlan
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
    """Which release to prove; without ``repair`` a wrong Redis value is reported and left as it is."""

    environment: str
    generation: int
    checksum: Checksum | None
    event_id: str
    rings: tuple[str, ...]
    effective_at: datetime
    repair: bool = True


class Proof(Model):
    """The release as Postgres, Redis and Kafka have it. ``partition``/``offset`` are the first tenant's event."""

    generation: int
    checksum: Checksum | None
    postgres: str
    redis: str
    partition: int
    offset: int
    events: tuple[DeliveredEvent, ...]
    repaired: bool


class Publish:
    """Makes a release, and proves it without trusting who made it."""

    def __init__(
        self,
        *,
        service: ConstitutionService,
        ledger: Ledger,
        cache: Cache,
        events: EventLog,
        config: ActivityConfig,
    ) -> None:
        self._service = service
        self._ledger = ledger
        self._cache = cache
        self._events = events
        self._config = config

    @activity.defn
    @classified
    async def acquire_lease(self, x: LeaseInput) -> Lease:
        """Take the environment's lease: one release at a time.

        Twice, or killed half-way: the lease is idempotent per update id and kind, and the key adds the run and the
        token that it lost, so the same run gets the same token until it says that this one is dead. Late, after its
        caller died: it holds the lease until a rollback pre-empts it or the token is given back;
        fencing others late is safe.

        Raises:
            LeaseHeldError: another run holds it; the message names it.
            NotCurrentError: another update holds it, and what this rollback undoes is not live.
        """
        require_environment(self._config, x.environment)
        request = LeaseRequest(
            update_id=x.update_id,
            kind=x.kind,
            workflow_id=x.workflow_id,
            own_only=x.own_only,
            undoes=x.undoes,
            approvals=x.approvals,
        )
        lost = "" if x.lost is None else f"-after-{x.lost}"
        step = f"lease-{x.kind.value}-{activity.info().workflow_run_id}{lost}"
        return await self._service.acquire_lease(request, step_key(x.environment, x.update_id, step))

    @activity.defn
    @classified
    async def release_lease(self, x: ReleaseLeaseInput) -> None:
        """Give the lease back.

        Twice, killed half-way, or late: with an old token it changes nothing.
        """
        require_environment(self._config, x.environment)
        request = LeaseRelease(update_id=x.update_id, fencing_token=x.fencing_token)
        step = f"release-{x.fencing_token}"
        await self._service.release_lease(request, step_key(x.environment, x.update_id, step))

    @activity.defn
    @classified
    async def load_release(self, x: LoadInput) -> Published:
        """Make the release: the point from which something is live.

        Assumes: the lease is held under ``fencing_token``. The service checks signatures, approvals and evidence
        itself, inside its transaction.
        Twice, or killed half-way: one release per update id; the stored answer comes back. Late, after its caller
        died: a rollback that has taken the lease since has fenced it, and the service refuses.

        Raises:
            LeaseLostError, StaleGenerationError: another caller was faster.
            NotApprovedError, EvidenceError, UntrustedError, InvalidDocumentError: refused, with all issues.
        """
        update = x.update
        require_environment(self._config, update.environment)
        request = LoadRequest(
            update_id=update.update_id,
            kind=update.kind,
            checksum=update.checksum,
            rings=update.rings,
            expected_generation=x.expected_generation,
            fencing_token=x.fencing_token,
            change_request=update.change_request,
            approvals=x.envelopes,
            test_evidence=x.evidence,
            reason=update.reason,
            workflow=WorkflowRef(workflow_id=update.workflow_id, run_id=update.run_id),
        )
        loaded = await self._service.load(request, step_key(update.environment, update.update_id, "load"))
        return published(loaded)

    @activity.defn
    @classified
    async def prove_published(self, x: ProveInput) -> Proof:
        """Read Postgres, Kafka and Redis back, each by itself, and compare (invariant 1); rewrite a stale Redis value.

        The relay writes Redis before it sends the event, so once the event is there a missing, stale or forged Redis
        value is a fault: it is deleted (never the floor), and a read of the service writes it again. It waits until no
        process of the service may still answer from a memory that lacks the release.
        Twice, killed half-way: reads, and a repair that is safe at any moment. Late: with a newer release current it
        refuses, and repairs nothing.

        Raises:
            NotYetError: something has not arrived yet.
            ConflictError: a newer release is current, or a place says something else about this generation.
        """
        require_environment(self._config, x.environment)
        postgres = [await self._prove_row(x, ring) for ring in x.rings]
        events = await self._prove_events(x)
        redis, repaired = [], False
        for ring in x.rings:
            cached, fixed = await self._prove_cache(x, ring)
            redis.append(cached)
            repaired = repaired or fixed
        return Proof(
            generation=x.generation,
            checksum=x.checksum,
            postgres="; ".join(postgres),
            redis="; ".join(redis),
            partition=events[0].partition,
            offset=events[0].offset,
            events=events,
            repaired=repaired,
        )

    async def _prove_row(self, x: ProveInput, ring: str) -> str:
        row = await self._ledger.current_row(ring)
        if row is None or row[0] < x.generation:
            raise NotYetError(f"Postgres: ring {ring} is at generation {row[0] if row else 0}, not yet {x.generation}")
        if row[0] > x.generation:
            raise ConflictError(f"Postgres: ring {ring} is at generation {row[0]} already, past {x.generation}")
        if row[1] != x.checksum:
            raise ConflictError(f"Postgres: generation {row[0]} in ring {ring} is {row[1]}, not {x.checksum}")
        return f"{ring}: generation {row[0]}, {row[1] or 'no constitution'}"

    async def _prove_events(self, x: ProveInput) -> tuple[DeliveredEvent, ...]:
        found = await self._events.find_events(x.generation, x.effective_at)
        proven = []
        for tenant in self._config.environment.tenants:
            identity = f"{x.event_id}:{tenant}"
            ours = [e for e in found if e["event_id"] == identity and e["checksum"] == x.checksum]
            if not ours:
                raise NotYetError(f"Kafka: no event {identity} of generation {x.generation} yet")
            first = ours[0]  # a duplicate carries the same id, later
            proven.append(
                DeliveredEvent(tenant=tenant, event_id=identity, partition=first["partition"], offset=first["offset"])
            )
        release = await self._service.release(x.generation)
        if release.event_id != x.event_id or release.checksum != x.checksum:
            raise ConflictError(f"the release record of generation {x.generation} names another event or document")
        if release.delivery.delivered_at is None:
            raise NotYetError(f"generation {x.generation} is not marked as delivered yet")
        if release.delivery.lagging:
            slow = ", ".join(release.delivery.lagging)
            raise NotYetError(f"constitution-service may still answer with an older release from memory: {slow}")
        return tuple(proven)

    async def _prove_cache(self, x: ProveInput, ring: str) -> tuple[str, bool]:
        # In a thread: verifying may load Sigstore, which takes a second once.
        trouble = await asyncio.to_thread(self._cache_trouble, x, ring, await self._cache.read(ring))
        if trouble is None:
            return f"{ring}: generation {x.generation}, {x.checksum or 'no constitution'}", False
        if not x.repair:
            raise NotYetError(f"Redis: ring {ring} {trouble}", hint="constitution doctor --repair")
        await self._cache.delete(ring)
        await self._service.current(ring, min_generation=x.generation)
        again = await asyncio.to_thread(self._cache_trouble, x, ring, await self._cache.read(ring))
        if again is not None:
            raise NotYetError(f"Redis: ring {ring} {again}; deleted, and not restored yet")
        return f"{ring}: generation {x.generation}, {x.checksum or 'no constitution'} (restored: it {trouble})", True

    def _cache_trouble(self, x: ProveInput, ring: str, raw: bytes | None) -> str | None:
        """Say what is wrong with a Redis value, or None; a value that is newer and true is a conflict, no fault."""
        if not raw:
            return "had no value"
        try:
            found = read_current(raw, trust=self._config.trust, environment=x.environment, ring=ring)
        except UntrustedError:
            return "held a value that does not verify"
        if found.generation > x.generation:
            raise ConflictError(f"Redis: ring {ring} is at generation {found.generation}, past {x.generation}")
        if found.generation < x.generation:
            return f"held generation {found.generation}"
        return None if found.checksum == x.checksum else f"held {found.checksum}"


def published(result: LoadResult) -> Published:
    """Return what a workflow needs of a load's answer."""
    return Published(
        generation=result.generation,
        version=result.version,
        checksum=result.checksum,
        event_id=result.event_id,
        effective_at=result.effective_at,
    )
