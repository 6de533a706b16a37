"""Records standings by evidence (invariant 4): the one act after which nothing is undone by itself.

Anybody who reaches Temporal can forge results of activities (`temporal activity complete`). So no result
that a workflow got decides here: the same activity that records the standing checks everything again.
"""

import asyncio
from datetime import UTC, datetime, timedelta

from temporalio import activity

from activities.decisions import judge_order
from activities.failures import classified
from activities.keys import require_environment, step_key
from activities.ports import ActivityConfig, ConstitutionService
from activities.publish import ProveInput, Publish
from activities.sync import GoldenInput, Sync, SyncInput
from constitution.api import StandingRequest
from constitution.checksum import Checksum
from constitution.errors import ContentError, EvidenceError, NotApprovedError, NotYetError
from constitution.model import Model
from constitution.release import Envelope, Release, Standing, Verdict
from constitution.trust.plan import Plan
from constitution.watch.evidence import WatchEvidence
from signatures.approved import approved

ENDS_EARLY = timedelta(seconds=1)
"""So much earlier than the strategy says may a watch have ended: times in evidence are rounded."""


class StandingInput(Model):
    """A standing to record, and where its evidence lies.

    Args:
        standing: ``confirmed``, or ``withdrawn``, which evidence of an anomaly makes ``poisoned``.
        watch_evidence: digest of the watch's evidence: the only source of a verdict.
        orders: signed orders to promote.
        workflow_id: whose orders they are.
        sync_seconds: how long the targets are asked before a release is confirmed.
    """

    environment: str
    generation: int
    standing: Standing
    reason: str
    update_id: str
    fencing_token: int
    watch_evidence: Checksum | None = None
    orders: tuple[Envelope, ...] = ()
    workflow_id: str = ""
    sync_seconds: float = 30.0


class StandingResult(Model):
    """The release's latest standing, as recorded; ``verdict`` is what the evidence says."""

    generation: int
    standing: Standing
    verdict: Verdict | None = None


class Confirm:
    """Records standings. ``publish`` and ``sync`` look again at what a confirmation rests on."""

    def __init__(self, *, service: ConstitutionService, config: ActivityConfig, publish: Publish, sync: Sync) -> None:
        self._service = service
        self._config = config
        self._publish = publish
        self._sync = sync

    @activity.defn
    @classified
    async def record_standing(self, x: StandingInput) -> StandingResult:
        """Append a standing; a confirmation only after everything was checked again.

        Twice, or killed half-way: the service appends the same standing once, and the key adds the run, because the
        run that follows a terminated one gives a reason of its own. Late, after its caller died: it needs the current
        token, so a fenced update can never confirm.

        Raises:
            LeaseLostError, ConflictError: the token is old, or the release is no longer current.
            EvidenceError: no evidence backs the confirmation: the release was not watched as its strategy says.
            NotConvergedError, NotYetError: the release is not delivered, or not obeyed.
        """
        require_environment(self._config, x.environment)
        release = await self._service.release(x.generation)
        standing, verdict = x.standing, None
        if x.standing is not Standing.CONFIRMED:
            standing, verdict = await self._undone(x, release)
        elif (recorded := _recorded_before(x, release)) is not None:
            return recorded
        elif await self._newest() == x.generation:
            verdict = await self._verdict(x, release)
            await self._look_again(x, release)
        request = StandingRequest(
            standing=standing,
            verdict=verdict,
            reason=x.reason,
            update_id=x.update_id,
            fencing_token=x.fencing_token,
            evidence=x.watch_evidence if standing is Standing.POISONED else None,
        )
        step = f"standing-{x.generation}-{standing.value}-{activity.info().workflow_run_id}"
        after = await self._service.record_standing(x.generation, request, step_key(x.environment, x.update_id, step))
        if after.standing is None:
            raise NotYetError(f"generation {x.generation} has no standing yet")
        return StandingResult(generation=after.generation, standing=after.standing, verdict=after.standings[-1].verdict)

    async def _newest(self) -> int:
        """Return the newest generation: the service refuses to confirm any other."""
        async for release in self._service.iter_releases():
            return release.generation
        return 0

    async def _undone(self, x: StandingInput, release: Release) -> tuple[Standing, Verdict | None]:
        """Return ``poisoned`` only for evidence of an anomaly of this very release, never for a caller's claim."""
        if release.standing is Standing.POISONED:
            return Standing.POISONED, Verdict.ANOMALY
        try:
            evidence = await self._evidence(x.watch_evidence, release)
        except ContentError as error:
            activity.logger.info("no_watch_evidence", extra={"reason": error.message})
            return Standing.WITHDRAWN, None
        if evidence.verdict is Verdict.ANOMALY:
            return Standing.POISONED, Verdict.ANOMALY
        return Standing.WITHDRAWN, evidence.verdict

    async def _verdict(self, x: StandingInput, release: Release) -> Verdict:
        """Return the watch's verdict as its evidence says, if the strategy or a signed order confirms by it."""
        if release.kind.undoes:
            return Verdict.NOT_WATCHED
        if await self._is_first(release):
            return Verdict.NOT_APPLICABLE
        plan = await self._signed_plan(release)
        strategy = plan.watch
        if strategy.watch_seconds == 0:
            return Verdict.NOT_WATCHED
        promoted = self._is_promoted(x)
        if x.watch_evidence is None and promoted:
            return Verdict.CANNOT_TELL
        evidence = await self._evidence(x.watch_evidence, release)
        if not evidence.is_as_signed(plan, release):
            raise EvidenceError(
                "this watch was not the one that the board signed: another strategy, or another expected change"
            )
        if promoted:
            return evidence.verdict
        least = release.effective_at + timedelta(seconds=strategy.watch_seconds) - ENDS_EARLY
        if evidence.verdict is not Verdict.ANOMALY and evidence.ends_at < least:
            raise EvidenceError(f"this watch ended at {evidence.ends_at}, before its strategy's end at {least}")
        if strategy.action(evidence.verdict) == "rollback":
            raise EvidenceError(f"the watch's evidence says {evidence.verdict.value}, which its strategy rolls back")
        return evidence.verdict

    async def _signed_plan(self, release: Release) -> Plan:
        """Return the plan that the board signed, and not the one of the run's starter."""
        predicate = await asyncio.to_thread(approved, release, self._config.trust)
        if predicate is None or predicate.plan is None:
            raise EvidenceError(f"no approval of generation {release.generation} says how it is to be watched")
        return predicate.plan

    async def _evidence(self, digest: Checksum | None, release: Release) -> WatchEvidence:
        if digest is None:
            raise EvidenceError(f"no evidence of a watch of generation {release.generation} is named")
        evidence = WatchEvidence.read(await self._service.blob(digest))
        other = evidence.differences(release)
        if other:
            raise EvidenceError(f"the evidence {digest} is of another watch: {'; '.join(other)}")
        return evidence

    async def _is_first(self, release: Release) -> bool:
        if release.previous_generation is None:
            return True
        return (await self._service.release(release.previous_generation)).checksum is None

    def _is_promoted(self, x: StandingInput) -> bool:
        people = set()
        for envelope in x.orders:
            try:
                person, _ = judge_order(
                    envelope,
                    trust=self._config.trust,
                    environment=x.environment,
                    workflow_id=x.workflow_id,
                    update_id=x.update_id,
                    order="promote",
                    step=None,
                    now=datetime.now(UTC),
                )
            except NotApprovedError as error:
                activity.logger.info("order_does_not_count", extra={"reason": error.message})
            else:
                people.add(person)
        return len(people) >= self._config.trust.thresholds.override

    async def _look_again(self, x: StandingInput, release: Release) -> None:
        """Repeat proof and sync: the results that the workflow got from them may have been forged."""
        await self._publish.prove_published(
            ProveInput(
                environment=x.environment,
                generation=release.generation,
                checksum=release.checksum,
                event_id=release.event_id,
                rings=release.rings,
                effective_at=release.effective_at,
            )
        )
        undoes = release.kind.undoes
        await self._sync.sync_targets(
            SyncInput(
                environment=x.environment,
                generation=release.generation,
                checksum=release.checksum,
                rings=release.rings,
                deadline_seconds=x.sync_seconds,
                require_all=not undoes,
            )
        )
        if not undoes and release.checksum is not None and await self._is_first(release):
            await self._sync.run_golden_vectors(
                GoldenInput(
                    environment=x.environment,
                    generation=release.generation,
                    checksum=release.checksum,
                    rings=release.rings,
                )
            )


def _recorded_before(x: StandingInput, release: Release) -> StandingResult | None:
    """Return what this update's confirmation was answered, if the answer was lost; also when it was undone since.

    It happened, also if the release was undone since, and it is not asked for a second time: by then evidence and
    targets may differ.
    """
    for record in release.standings:
        if record.standing is Standing.CONFIRMED and record.update_id == x.update_id:
            return StandingResult(generation=release.generation, standing=record.standing, verdict=record.verdict)
    return None
