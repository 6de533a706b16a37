"""How an update is undone: each undo is safe if its step never happened, happened, or happens later (invariant 6).

It begins by fencing because of a late load: constitution-service closes the update id, so that it refuses any later
call; only then does the undo read the live release.
"""

from temporalio import workflow
from temporalio.exceptions import FailureError

from constitution.messages import RollbackRequest, RollbackResult
from constitution.names import Names
from workflows import child_runs, policies
from workflows.compensation import Compensations
from workflows.guard_supervisor import GuardSupervisor
from workflows.release_steps import ReleaseSteps
from workflows.status import Journal, clipped
from workflows.stepping import Stepper

with workflow.unsafe.imports_passed_through():
    from activities.deployment import DeploymentInfo
    from activities.restore import FenceInput, Restore


class Undo:
    """The compensations of one update, and what they found.

    Args:
        stepper: runs them; nothing interrupts them.
        journal: where they become visible.
        steps: to give the lease back.
    """

    def __init__(self, stepper: Stepper, journal: Journal, steps: ReleaseSteps) -> None:
        self._stepper = stepper
        self._journal = journal
        self._steps = steps
        self._info: DeploymentInfo | None = None
        self.compensations = Compensations()
        self.cause = ""
        """Why it is undone: the step that failed, and how."""
        self.watch_evidence: str | None = None
        """Digest of evidence: of an anomaly, it poisons the document (activities/confirm.py)."""
        self.token = 0
        """The fencing token of the undo; 0 until it has fenced."""
        self.rollback: RollbackResult | None = None
        """What the rollback did, where one was needed."""
        self.confirmed: int | None = None
        """The generation that *is* confirmed, although this run did not learn it: then nothing is undone."""
        self.undone: int | None = None
        """The generation that had been undone before."""

    def of_lease(self) -> None:
        """Register the undo of the lease; before it is asked for."""
        self.compensations.register("lease", self._give_lease_back)

    def of_publish(self) -> None:
        """Register the undo of the publish; before the load."""
        self.compensations.register("publish", self._roll_back)

    async def unwind(self, info: DeploymentInfo) -> list[tuple[str, FailureError]]:
        """Undo every registered step, newest first; return the failures, named."""
        self._info = info
        if await child_runs.was_reset():
            await self._take_over(info)
        return await self.compensations.unwind()

    async def _take_over(self, info: DeploymentInfo) -> None:
        """After a reset: undo also the steps of the run that it cut off, and wake that run's guard."""
        if not self.compensations.knows("lease"):
            self.of_lease()
        if not self.compensations.knows("publish"):
            self.of_publish()
        if not self._steps.is_guarded:
            await GuardSupervisor(info.namespace).wake()

    async def _roll_back(self) -> None:
        """Undo of publish, safe if it never happened or happens late: take the lease, only then look."""
        info = self._known()
        fenced = await self._fence()
        if fenced is None:
            return
        self._journal.step("publish", "undone", detail=f"generation {fenced} is undone by the rollback below")
        self._journal.set(rollback_workflow=Names(info.namespace).rollback_id(info.environment, fenced))
        self.rollback = await child_runs.roll_back(
            fenced,
            RollbackRequest(
                reason=clipped(self.cause, 1000),
                bad_generation=fenced,
                update_id=self._journal.status.update_id,
                watch_evidence=self.watch_evidence,
            ),
            info,
            self._journal,
        )
        self._journal.step("publish", "undone", detail=f"generation {fenced} was rolled back")

    async def _fence(self) -> int | None:
        fenced = await self._stepper.run(
            "publish",
            Restore.fence_and_look,
            FenceInput(
                environment=self._known().environment,
                update_id=self._journal.status.update_id or "",
                workflow_id=workflow.info().workflow_id,
            ),
            policies.PROVE,
            summary="fence any late load with the lease, then look at what is live",
            persistent=True,
            manages_state=False,
        )
        self.token = fenced.fencing_token
        self.confirmed, self.undone = fenced.confirmed, fenced.undone
        return fenced.generation

    async def _give_lease_back(self) -> None:
        """Undo of lease, safe if it is granted late: fencing closes this update id for ever."""
        if self.rollback is not None or self.confirmed is not None:
            return  # the rollback has given the lease back; or the records give it back first
        if not self.token:
            await self._fence()
        await self._steps.release_lease(self.token)

    def _known(self) -> DeploymentInfo:
        if self._info is None:  # `unwind` sets it before any undo runs
            raise AssertionError(self.cause)
        return self._info
