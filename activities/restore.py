"""The rollback's own acts: fence, look, plan, load the release that was confirmed before."""

import asyncio
from datetime import UTC, datetime

from temporalio import activity

from activities.failures import classified
from activities.keys import require_environment, step_key
from activities.past_releases import past_releases
from activities.plan import PlanInput, RollbackPlan, make_plan
from activities.ports import ActivityConfig, ConstitutionService
from activities.publish import Published, published
from constitution.api import LeaseRequest, LoadRequest, WorkflowRef
from constitution.checksum import Checksum
from constitution.errors import InvalidRequestError, LeaseHeldError, NotYetError
from constitution.model import Model
from constitution.release import Envelope, Kind, Standing
from constitution.rollback_plan import confirm_by
from signatures.approved import approved

__all__ = ["FenceInput", "Fenced", "PlanInput", "Restore", "RestoreInput", "RollbackPlan"]


class FenceInput(Model):
    """Who fences."""

    environment: str
    update_id: str
    workflow_id: str


class Fenced(Model):
    """The lease is ours, so no late load can happen any more.

    ``generation`` is the release to undo: of this update id and not confirmed, or one whose undoing by this update id
    is not confirmed. ``confirmed`` is a release of this update id that is: the point of no return was passed.
    ``undone`` is a release whose undoing was completed. All null: nothing was ever published.
    """

    generation: int | None
    version: str | None
    checksum: Checksum | None
    fencing_token: int
    confirmed: int | None = None
    undone: int | None = None


class RestoreInput(Model):
    """Which plan to carry out, under which fencing token."""

    plan: RollbackPlan
    envelopes: tuple[Envelope, ...] = ()
    fencing_token: int
    reason: str
    workflow_id: str
    run_id: str


class Restore:
    """Undoes a release."""

    def __init__(self, *, service: ConstitutionService, config: ActivityConfig) -> None:
        self._service = service
        self._config = config

    @activity.defn
    @classified
    async def fence_and_look(self, x: FenceInput) -> Fenced:
        """Take the lease as a rollback, which fences any load that is still under way (invariant 6); only then look.

        The lease is never taken from another update: that one could only get it after ours was given back, and this
        call has closed our update id in the service.
        Twice, or killed half-way: the lease is idempotent per update id and kind; the look is repeated. Late, after
        its caller died: it only holds the lease, which any rollback's successor can take.

        Raises:
            NotYetError: another rollback holds the lease; it is named.
        """
        require_environment(self._config, x.environment)
        request = LeaseRequest(update_id=x.update_id, kind=Kind.ROLLBACK, workflow_id=x.workflow_id, own_only=True)
        step = f"fence-{activity.info().workflow_run_id}"
        token = 0
        try:
            token = (
                await self._service.acquire_lease(request, step_key(x.environment, x.update_id, step))
            ).fencing_token
        except LeaseHeldError as error:
            if error.current is None or Kind(error.current["kind"]).undoes:
                raise NotYetError(f"another rollback is under way: {error.message}", hint=error.hint) from error
        own = [r async for r in self._service.iter_releases() if r.update_id == x.update_id]
        newest = max(own, key=lambda r: r.generation, default=None)
        if newest is None:
            return Fenced(generation=None, version=None, checksum=None, fencing_token=token)
        confirmed = newest.standing is Standing.CONFIRMED
        undoing = newest.kind.undoes
        unconfirmed = newest.rollback_of if undoing else newest.generation
        return Fenced(
            generation=None if confirmed else unconfirmed,
            version=newest.version,
            checksum=newest.checksum,
            fencing_token=token,
            confirmed=newest.generation if confirmed and not undoing else None,
            undone=newest.rollback_of if confirmed and undoing else None,
        )

    @activity.defn
    @classified
    async def plan_rollback(self, x: PlanInput) -> RollbackPlan:
        """Return the release to undo, the one to restore, and whether the board must sign for it. Only reads.

        Assumes nothing. Twice, killed half-way, or late: reads; the plan is checked again by the service at the load.

        Raises:
            InvalidRequestError: with every problem: nothing is live, no such generation, a newer release is current,
                the release to restore was never confirmed, or is the live one.
        """
        require_environment(self._config, x.environment)
        releases, now = await past_releases(self._service), datetime.now(UTC)
        plan = make_plan(
            x,
            releases,
            environment=self._config.environment,
            thresholds=self._config.trust.thresholds,
            links=self._config.links,
            now=now,
        )
        if plan.needs_order and await self._is_overdue(plan, now):
            return plan.model_copy(update={"needs_order": False})
        return plan

    async def _is_overdue(self, plan: RollbackPlan, now: datetime) -> bool:
        """Whether a release is unconfirmed longer than its run can last: its undo needs nobody."""
        bad = await self._service.release(plan.bad_generation or 0)
        if bad.standing is not None:
            return False
        said = await asyncio.to_thread(approved, bad, self._config.trust)
        watch = 0 if said is None or said.plan is None else said.plan.watch.watch_seconds
        return now >= confirm_by(bad.effective_at, watch, plan.deadlines)

    @activity.defn
    @classified
    async def load_restored(self, x: RestoreInput) -> Published:
        """Make the release that undoes the bad one.

        Assumes: the lease is held under ``fencing_token``, and the plan was made under it. A plan that found the undo
        done already (``already``) loads nothing: that release is returned, to be proved again.
        Twice, or killed half-way: one undo per bad generation and run; the stored answer comes back. Late, after its
        run was terminated: it is the undo, and the run that follows finds the generation stale and looks again; a
        newer release or lease makes the service refuse.

        Raises:
            LeaseLostError, StaleGenerationError: somebody was faster: make the plan again.
            NotApprovedError: not pre-authorised, and the quorum's signatures are missing.
            InvalidRequestError: the plan undoes nothing.
        """
        plan = x.plan
        require_environment(self._config, plan.environment)
        if plan.bad_generation is None:
            raise InvalidRequestError("this plan undoes nothing: its update never published")
        if plan.already is not None:
            done = await self._service.release(plan.already)
            return Published(
                generation=done.generation,
                version=done.version,
                checksum=done.checksum,
                event_id=done.event_id,
                effective_at=done.effective_at,
            )
        request = LoadRequest(
            update_id=plan.update_id,
            kind=plan.kind,
            checksum=plan.checksum,
            rings=plan.rings,
            expected_generation=plan.expected_generation,
            fencing_token=x.fencing_token,
            approvals=x.envelopes,
            rollback_of=plan.bad_generation,
            reason=x.reason,
            workflow=WorkflowRef(workflow_id=x.workflow_id, run_id=x.run_id),
        )
        step = f"restore-{plan.bad_generation}-{activity.info().workflow_run_id}"
        return published(await self._service.load(request, step_key(plan.environment, plan.update_id, step)))
