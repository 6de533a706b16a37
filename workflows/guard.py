"""ConstitutionGuard: the dead man's switch of an update or a rollback; it also archives the closed histories.

A child with parent-close policy REQUEST_CANCEL that waits for ever: however its parent ends (completed, failed, timed
out, terminated), Temporal cancels it, and that wakes it. It then reads the live release, has an unconfirmed one
rolled back, and archives the closed event histories (invariant 4).
"""

import asyncio

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError

from constitution.api import AuditEvent, WorkflowRef
from constitution.errors import InvalidRequestError, NotFoundError
from constitution.messages import Outcome, Phase, RollbackRequest, Status
from workflows import child_runs, policies
from workflows.bookkeeping import NOT_TO_ARCHIVE
from workflows.child_runs import GuardRequest
from workflows.input import NOTHING, read
from workflows.status import Journal, clipped
from workflows.stepping import StepFailedError, Stepper, StepSkippedError, explain

with workflow.unsafe.imports_passed_through():
    from activities.archive import ArchiveInput, ArchiveRelease, HistoriesInput, RefusalInput
    from activities.audit import Audit
    from activities.broadcast import Announcement, Broadcast
    from activities.deployment import DeploymentInfo
    from activities.publish import Publish, ReleaseLeaseInput
    from activities.restore import Fenced, FenceInput, Restore
    from activities.run_group import RunGroup, RunGroupInput, RunGroupReleases
    from activities.runs import RunRef, RunState

STEPS = ("guard", "fence", "rollback", "histories")


@workflow.defn(name=child_runs.GUARD, failure_exception_types=[TypeError])
class ConstitutionGuard:
    """Waits for its parent's end; then makes sure that nothing unconfirmed stays live, and archives the histories.

    Started by its parent only; its input is ``workflows.child_runs.GuardRequest``. It cannot be interrupted: a cancel
    before its parent's end makes it wait for that end by asking.
    """

    def __init__(self) -> None:
        self._journal = Journal(child_runs.GUARD, STEPS)
        self._stepper = Stepper(self._journal, lambda: None)
        self._stepper.persistent_phase = Phase.ROLLING_BACK

    @workflow.query(name="status", description="What the guard does.")
    def status(self) -> Status:
        """Return the visible state of the guard."""
        return self._journal.status

    @workflow.run
    async def run(self, raw: RawValue = NOTHING) -> str:
        """Guard the parent; return, in words, how it answered its end."""
        try:
            request = read(GuardRequest, raw, hint="a guard is started by its update, never by hand")
        except InvalidRequestError as error:
            raise ApplicationError(error.diagnostics(), type="Rejected", non_retryable=True) from error
        self._journal.set(environment=request.environment, update_id=request.update_id)
        self._journal.waiting("guard", f"the end of {request.parent.workflow_id}", "")
        try:
            await workflow.wait_condition(lambda: request.awake)
        except asyncio.CancelledError:
            if workflow.cancellation_reason() is None:
                raise  # the worker evicts this run from its cache
        # From here on in a task of its own: a second cancel must not stop it.
        body = asyncio.create_task(self._answer(request), name="answer")
        while True:
            try:
                return await asyncio.shield(body)
            except asyncio.CancelledError:
                if body.done() or workflow.cancellation_reason() is None:
                    raise

    async def _answer(self, request: GuardRequest) -> str:
        self._journal.going_on("guard", Phase.RUNNING)
        state = await child_runs.await_closed(request.parent, request.update_id)
        ended = state.status if state else "unknown to Temporal"
        self._journal.step("guard", "done", detail=f"{request.parent.workflow_id} ended: {ended}")
        info = await child_runs.deployment(self._journal)
        summary = f"{request.parent.workflow_id} ended: {ended}"
        if state is None or state.outcome is None:  # it ended in mid-step, without compensating by itself
            summary += await self._undo_unconfirmed(request, info, ended)
        if request.archives_histories:
            summary += await self._archive_histories(request, state)
            self._journal.step("histories", "done")
        self._journal.settle()
        self._journal.set(phase=Phase.CLOSED, outcome_detail=summary)
        return summary

    async def _undo_unconfirmed(self, request: GuardRequest, info: DeploymentInfo, ended: str) -> str:
        fenced = await self._stepper.run(
            "fence",
            Restore.fence_and_look,
            FenceInput(
                environment=request.environment,
                update_id=request.update_id,
                workflow_id=workflow.info().workflow_id,
            ),
            policies.PROVE,
            summary="fence any late load with the lease, then look at what is live",
            persistent=True,
        )
        if fenced.generation is None:
            await self._stepper.run(
                "fence",
                Publish.release_lease,
                ReleaseLeaseInput(
                    environment=request.environment, update_id=request.update_id, fencing_token=fenced.fencing_token
                ),
                policies.WRITE,
                summary="give the lease back: nothing unconfirmed is live",
                persistent=True,
            )
            return await self._announce(request, info, fenced, ended)
        self._journal.step("rollback", "running", detail=f"generation {fenced.generation}")
        result = await child_runs.roll_back(
            fenced.generation,
            RollbackRequest(
                reason=f"{request.parent.workflow_id} ended without an outcome: {ended}",
                bad_generation=fenced.generation,
                update_id=request.update_id,
            ),
            info,
            self._journal,
        )
        self._journal.step("rollback", "done", detail=f"generation {result.generation}")
        return f"; generation {fenced.generation} was rolled back as generation {result.generation}"

    async def _announce(self, request: GuardRequest, info: DeploymentInfo, fenced: Fenced, ended: str) -> str:
        """Tell and archive what its parent could not: it ended after confirmation, or before anything was published."""
        if fenced.undone is not None:
            return f"; generation {fenced.undone} had been rolled back"
        outcome = Outcome.REJECTED if fenced.confirmed is None else Outcome.COMPLETED
        reason = f"its run ended without an outcome: {ended}"
        await self._stepper.run(
            "fence",
            Broadcast.announce,
            Announcement(
                key=f"{request.update_id}/{outcome.value}",
                update_id=request.update_id,
                environment=request.environment,
                outcome=outcome,
                version=fenced.version,
                checksum=fenced.checksum,
                generation=fenced.confirmed,
                reason=reason,
                workflow_id=request.parent.workflow_id,
                run_id=request.parent.run_id or "",
            ),
            policies.SLACK,
            summary=f"announce in {info.channel}: {outcome.value}",
            persistent=True,
        )
        await self._audit(request, f"guard.{outcome.value}", reason)
        if fenced.confirmed is None:
            await self._archive_refusal(request, reason)
            return "; nothing had been published"
        await self._stepper.run(
            "histories",
            ArchiveRelease.archive_release,
            ArchiveInput(
                environment=request.environment,
                generation=fenced.confirmed,
                outcome=outcome.value,
            ),
            policies.GIT,
            summary=f"generation {fenced.confirmed} into the legal archive",
            persistent=True,
            manages_state=False,
        )
        return f"; generation {fenced.confirmed} is confirmed and live"

    async def _archive_refusal(self, request: GuardRequest, reason: str) -> None:
        """Put an update whose run is dead, and that was never live, into the legal archive, or give up visibly."""
        try:
            await self._stepper.run(
                "histories",
                ArchiveRelease.archive_refusal,
                RefusalInput(
                    environment=request.environment,
                    update_id=request.update_id,
                    what="update",
                    reason=clipped(reason, 4000),
                    at=workflow.now(),
                    workflow_id=request.parent.workflow_id,
                    run_id=request.parent.run_id or "",
                ),
                policies.GIT,
                summary="the refusal into the legal archive",
                persistent=True,
                manages_state=False,
                deadline=policies.AUDIT_DEADLINE,
                raises=NOT_TO_ARCHIVE,
            )
        except (StepFailedError, StepSkippedError) as error:
            self._journal.refused(f"refusal not archived: {error}")

    async def _audit(self, request: GuardRequest, activity: str, message: str) -> None:
        me = workflow.info()
        await self._stepper.run(
            "fence",
            Audit.audit,
            AuditEvent(
                id=f"{request.update_id}/{activity}",
                update_id=request.update_id,
                workflow=WorkflowRef(workflow_id=me.workflow_id, run_id=me.run_id),
                activity=activity,
                success=False,
                message=message,
            ),
            policies.WRITE,
            summary=f"audit: {activity}",
            persistent=True,
        )

    async def _archive_histories(self, request: GuardRequest, ended: RunState | None) -> str:
        """Put the closed histories of the run group into the archive, once each, by release."""
        found: RunGroupReleases = await self._stepper.run(
            "histories",
            RunGroup.releases_of,
            RunGroupInput(update_id=request.update_id),
            policies.READ,
            summary="which releases did this run group make",
            persistent=True,
            manages_state=False,
        )
        runs: dict[str, RunRef] = {f"{request.parent.workflow_id}/{request.parent.run_id}": request.parent}
        if ended is not None:  # another run than the parent, if that was reset
            became = RunRef(workflow_id=ended.workflow_id, run_id=ended.run_id)
            runs.setdefault(f"{became.workflow_id}/{became.run_id}", became)
        for release in found.releases:
            if release.run is not None and (await self._closed(release.run)):
                runs[f"{release.run.workflow_id}/{release.run.run_id}"] = release.run
        commits = []
        for release in found.releases:
            try:
                archived = await self._stepper.run(
                    "histories",
                    ArchiveRelease.archive_histories,
                    HistoriesInput(
                        environment=request.environment,
                        generation=release.generation,
                        runs=tuple(runs.values()),
                    ),
                    policies.GIT,
                    summary=f"closed histories of generation {release.generation} into the archive",
                    persistent=True,
                    raises=frozenset({NotFoundError.code}),  # Temporal's retention has taken a history: nobody has it
                )
            except StepFailedError as error:
                self._journal.refused(
                    f"generation {release.generation}: histories are not archived: {error.failure.message}"
                )
                continue
            commits.append(archived.commit[:12])
        return f"; histories archived in {', '.join(commits)}" if commits else ""

    async def _closed(self, run: RunRef) -> bool:
        try:
            return await child_runs.await_closed(run) is not None
        except ActivityError as error:  # cannot be waited for: the archive gets the known part
            self._journal.refused(f"{run.workflow_id}: {explain(error).message}")
            return False
