"""ConstitutionReconcile: compares every system with the releases, repairs what is safe, and names the rest.

A short run, started every 30 s by a Temporal Schedule, and by ``constitution doctor``. It is the guard's guard: a run
that was killed together with its guard gets its guard again, and a dead run group's unconfirmed release is rolled back.
A system that cannot be read is a finding, never a failure: the next run looks again. Rules: docs/operations.md.
"""

import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ActivityError, ApplicationError, WorkflowAlreadyStartedError, is_cancelled_exception

from constitution.api import AuditEvent, WorkflowRef
from constitution.errors import InvalidRequestError
from constitution.messages import RollbackRequest
from constitution.names import Names
from constitution.reconciliation import RECONCILE, Finding, ReconcileReport, ReconcileRequest, remember
from workflows import child_runs
from workflows.calling import call
from workflows.child_runs import GuardRequest
from workflows.input import NOTHING, read
from workflows.policies import StepPolicy
from workflows.stepping import explain

with workflow.unsafe.imports_passed_through():
    from activities.archive import ArchiveRelease, SiemInput
    from activities.audit import Audit
    from activities.deployment import DeploymentActivities, DeploymentInfo, DeploymentQuestion
    from activities.publish import ProveInput, Publish, ReleaseLeaseInput
    from activities.reconcile.archive_checks import ArchiveChecks, ArchiveLook, ChannelInput
    from activities.reconcile.reconcile import Live, Reconcile, ReconcileInput, Survey, Unguarded
    from activities.reconcile.run_checks import FindingsInput, RunChecks, RunsInput
    from activities.reconcile.target_checks import DocumentsInput, Found, TargetChecks, TargetsInput, TopicInput
    from activities.restore import FenceInput, Restore
    from activities.runs import RunRef

HINT = 'constitution doctor  # its input by hand is one JSON object: {"repair": false}'
REPAIR = "constitution doctor --repair"
STANDS_ALONE = frozenset({"target-unreachable", "cannot-look"})  # true also if a release happened meanwhile
LONGEST = timedelta(seconds=45)  # of one look; longer means that a system hangs, which is a finding
TWICE = RetryPolicy(maximum_attempts=2, initial_interval=timedelta(milliseconds=500))  # the next run is the next retry
LOOK = StepPolicy(LONGEST, retry=TWICE)
MOST_AUDITED = 50  # new findings told by one run; the others are new again in the next

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")


@workflow.defn(name=RECONCILE, failure_exception_types=[TypeError])
class ConstitutionReconcile:
    """Compares Postgres, Redis, Kafka, store, archive, targets, channel and runs; result: :class:`ReconcileReport`.

    Input: one JSON object, ``constitution.reconciliation.ReconcileRequest``. Two at the same time are harmless: each
    repair is safe to run twice, and what starts runs attaches to those that run.
    """

    def __init__(self) -> None:
        self._findings: list[Finding] = []
        self._checked: list[str] = []
        self._unchecked: list[str] = []
        self._drifting = 0

    @workflow.run
    async def run(self, raw: RawValue = NOTHING) -> ReconcileReport:
        """Look once."""
        try:
            request = read(ReconcileRequest, raw, hint=HINT)
        except InvalidRequestError as error:
            raise ApplicationError(error.diagnostics(), type="Rejected", non_retryable=True) from error
        info = await call(
            DeploymentActivities.read_deployment,
            DeploymentQuestion(asked_by=RECONCILE),
            LOOK,
            "which environment is this worker's",
        )
        survey = await self._survey(info, request)
        if survey is not None:
            self._findings += survey.findings
            await self._families(survey, info, request)
            await self._compare(survey, info, request)
            await self._documents(survey, info)
        else:
            await self._targets((), info, request)
        await self._archive(info, request)
        await self._channel_and_runs(info, request)
        return await self._report(info, request)

    async def _survey(self, info: DeploymentInfo, request: ReconcileRequest) -> Survey | None:
        question = ReconcileInput(environment=info.environment, closed_seconds=request.closed_seconds)
        return await self._look("releases and runs", Reconcile.survey, question, "what is live, and who left it behind")

    # run groups: a guard finishes or undoes the release of a killed run

    async def _families(self, survey: Survey, info: DeploymentInfo, request: ReconcileRequest) -> None:
        for run in survey.unguarded:
            finding = Finding(
                code="run-without-outcome",
                where=run.parent.workflow_id,
                message=f"it ended ({run.status}) without an outcome, and so did its guard",
                command=REPAIR,
            )
            if request.repair:
                await self._guard_again(run, info)
                finding = finding.model_copy(
                    update={"repaired": "its guard was started again: it undoes, announces, archives"}
                )
            self._findings.append(finding)
        for guard in survey.asleep:
            finding = Finding(
                code="guard-asleep",
                where=guard.workflow_id,
                message="it waits for the end of a run that has ended: a reset took that run's children away",
                command=REPAIR,
            )
            if request.repair:
                await self._wake(guard)
                finding = finding.model_copy(update={"repaired": "it was woken: it undoes, announces, archives"})
            self._findings.append(finding)
        for update_id in survey.orphans:
            finding = Finding(
                code="run-group-closed",
                where=f"update {update_id}",
                message="it holds the lease or its unconfirmed release is live, and all its runs have been closed",
                command=REPAIR,
            )
            if request.repair:
                finding = finding.model_copy(update={"repaired": await self._undo(update_id, info)})
            self._findings.append(finding)

    async def _wake(self, guard: RunRef) -> None:
        """Cancel a guard, as Temporal does when its parent ends; one that has ended meanwhile needs it no more."""
        with contextlib.suppress(ApplicationError):
            await workflow.get_external_workflow_handle(guard.workflow_id, run_id=guard.run_id).cancel()

    async def _guard_again(self, run: Unguarded, info: DeploymentInfo) -> None:
        """Start a run's guard, awake: it finds its parent closed, and does what it is for."""
        guard_id = Names(info.namespace).guard_id(run.parent.workflow_id, run.parent.run_id or "")
        request = GuardRequest(
            parent=run.parent,
            update_id=run.update_id,
            environment=info.environment,
            namespace=info.namespace,
            archives_histories=True,
            awake=True,
        )
        summary = "guard of a run that was killed together with its guard"
        await self._start(child_runs.GUARD, request, guard_id, summary)

    async def _undo(self, update_id: str, info: DeploymentInfo) -> str:
        """Fence and look; then start the rollback of what is live and unconfirmed, or give the lease back."""
        fenced = await self._look(
            f"update {update_id}",
            Restore.fence_and_look,
            FenceInput(environment=info.environment, update_id=update_id, workflow_id=workflow.info().workflow_id),
            "fence any late load with the lease, then look at what is live",
        )
        if fenced is None:
            return ""
        if fenced.generation is None:
            lease = ReleaseLeaseInput(
                environment=info.environment, update_id=update_id, fencing_token=fenced.fencing_token
            )
            await self._look("lease", Publish.release_lease, lease, "give the lease back: nothing unconfirmed is live")
            return "the lease was given back; nothing unconfirmed is live"
        reason = f"generation {fenced.generation} was unconfirmed, and its runs had been closed"
        request = RollbackRequest(reason=reason, bad_generation=fenced.generation, update_id=update_id)
        ids = child_runs.rollback_ids(info, fenced.generation)
        while not await self._start(
            child_runs.ROLLBACK, request, rollback_id := next(ids), f"undo generation {fenced.generation}"
        ):
            if not await child_runs.foreign_run(info, rollback_id):
                return f"{rollback_id} runs already"
        return f"{rollback_id} was started"

    async def _start(self, name: str, request: GuardRequest | RollbackRequest, identity: str, summary: str) -> bool:
        """Start a run that outlives this one; False: it runs already."""
        try:
            await workflow.start_child_workflow(
                name,
                request,
                id=identity,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary=summary,
            )
        except WorkflowAlreadyStartedError:
            return False
        return True

    # places: Postgres, Redis, Kafka, the SIEM, the targets

    async def _compare(self, survey: Survey, info: DeploymentInfo, request: ReconcileRequest) -> None:
        """Compare all systems; findings count only if nothing was released or leased meanwhile."""
        start = len(self._findings)
        for live in survey.live:
            if live.settled:
                await self._release(live, info, request)
            else:
                self._unchecked.append(f"generation {live.generation} in Redis, Kafka and SIEM: it is too young")
        if survey.live:
            topic = TopicInput(environment=info.environment, highest=survey.highest, since=survey.live[-1].effective_at)
            self._add(await self._look("topic", TargetChecks.check_topic, topic, "events that Postgres does not know"))
        await self._targets(survey.live, info, request)
        if any(not finding.repaired for finding in self._findings[start:]):
            again = await self._survey(info, request)
            if again is None or again.mark != survey.mark:
                kept = [f for f in self._findings[start:] if f.repaired or f.code in STANDS_ALONE]
                if len(kept) < len(self._findings) - start:
                    self._unchecked.append("places against each other: something was released or leased meanwhile")
                self._findings[start:] = kept

    async def _targets(self, live: tuple[Live, ...], info: DeploymentInfo, request: ReconcileRequest) -> None:
        """Ask every target; without a release to compare with, only whether it answers."""
        targets = TargetsInput(environment=info.environment, live=live, refresh=request.repair)
        self._add(await self._look("targets", TargetChecks.check_targets, targets, "what every target obeys"))

    async def _release(self, live: Live, info: DeploymentInfo, request: ReconcileRequest) -> None:
        where = f"generation {live.generation}"
        question = ProveInput(
            environment=info.environment,
            generation=live.generation,
            checksum=live.checksum,
            event_id=live.event_id,
            rings=live.rings,
            effective_at=live.effective_at,
            repair=request.repair,
        )
        try:
            proof = await self._call(Publish.prove_published, question, "read it back from Postgres, Redis and Kafka")
        except ActivityError as error:
            self._findings.append(_finding("places-disagree", where, error, f"constitution show {live.generation}"))
            return
        self._checked.append(where)
        if proof.repaired:
            self._findings.append(
                Finding(
                    code="places-disagree",
                    where=where,
                    message=f"Redis: {proof.redis}",
                    command="find out who wrote to Redis",
                    repaired="the value was deleted, and restored by a read of constitution-service",
                )
            )
        try:
            await self._call(
                ArchiveRelease.confirm_siem,
                SiemInput(environment=info.environment, events=proof.events, patience_seconds=0),
                "has the SIEM taken the event",
            )
        except ActivityError as error:
            self._findings.append(
                _finding("siem-behind", where, error, "make status  # then the log of siem-forwarder")
            )

    async def _documents(self, survey: Survey, info: DeploymentInfo) -> None:
        question = DocumentsInput(environment=info.environment, live=survey.live, fallback=survey.fallback)
        summary = "documents in force, and to fall back to"
        self._add(await self._look("artifact store", TargetChecks.check_documents, question, summary))

    # records and people

    async def _archive(self, info: DeploymentInfo, request: ReconcileRequest) -> None:
        question = ArchiveLook(environment=info.environment, closed_seconds=request.closed_seconds)
        found = await self._look(
            "archive", ArchiveChecks.check_archive, question, "is every outcome in the legal archive"
        )
        if found is None:
            return
        self._findings += found.findings
        for missing in found.missing:
            finding = Finding(
                code="archive-missing",
                where=f"generation {missing.generation}, {missing.outcome}",
                message="its folder or its row in the change log is not complete",
                command=REPAIR,
            )
            if request.repair:
                where = f"archive, generation {missing.generation}"
                archived = await self._look(where, ArchiveRelease.archive_release, missing, "write it anew")
                if archived is not None:
                    repaired = f"written anew in commit {archived.commit[:12]}"
                    finding = finding.model_copy(update={"repaired": repaired})
            self._findings.append(finding)

    async def _channel_and_runs(self, info: DeploymentInfo, request: ReconcileRequest) -> None:
        channel = ChannelInput(environment=info.environment, repair=request.repair)
        self._add(await self._look("channel", ArchiveChecks.check_channel, channel, "was each outcome announced once"))
        runs = RunsInput(environment=info.environment)
        self._add(await self._look("runs", RunChecks.check_runs, runs, "who waits for a person"))

    # findings

    async def _report(self, info: DeploymentInfo, request: ReconcileRequest) -> ReconcileReport:
        findings = tuple(self._findings)
        found = FindingsInput(environment=info.environment, findings=findings, drifting=self._drifting)
        await self._look("findings", RunChecks.report_findings, found, f"{len(findings)} findings to log and metrics")
        last = workflow.get_last_completion_result(ReconcileReport)
        report = ReconcileReport(
            environment=info.environment,
            at=workflow.now(),
            repair=request.repair,
            checked=tuple(self._checked),
            findings=tuple(self._findings),
            unchecked=tuple(self._unchecked),
            known=remember(last.known if last else (), findings, workflow.now()),
        )
        workflow.set_current_details("\n".join(f"- {f.code} {f.where}" for f in findings) or "all well")
        return await self._audit(report) if request.repair else report

    async def _audit(self, report: ReconcileReport) -> ReconcileReport:
        """Audit the new findings and repairs: each finding once for as long as it lasts, each repair once."""
        run_id = workflow.info().run_id
        since = {known.key: known for known in report.known}
        told: set[str] = set()
        for finding in report.findings:
            known = since.get(finding.key)
            if finding.repaired:
                event_id = f"{report.environment}/reconcile/{finding.key}/{run_id}"
            elif known is not None and not known.audited:
                event_id = f"{report.environment}/reconcile/{finding.key}/{known.since.isoformat()}"
            else:
                continue
            if len(told) < MOST_AUDITED and await self._audited(event_id, finding):
                told.add(finding.key)
        changed = (k.model_copy(update={"audited": True}) if k.key in told else k for k in report.known)
        return report.model_copy(update={"known": tuple(changed)})

    async def _audited(self, event_id: str, finding: Finding) -> bool:
        me = workflow.info()
        event = AuditEvent(
            id=event_id,
            update_id=me.run_id,
            workflow=WorkflowRef(workflow_id=me.workflow_id, run_id=me.run_id),
            activity="reconcile.repaired" if finding.repaired else "reconcile.found",
            success=bool(finding.repaired),
            message=f"{finding.code}: {finding.where}: {finding.message}"[:4000],
            details=finding.model_dump(),
        )
        try:
            await self._call(Audit.audit, event, f"audit: {finding.code}")
        except ActivityError as error:
            workflow.logger.warning("finding_not_audited", extra={"reason": explain(error).message})
            return False
        return True

    # calling

    def _add(self, found: Found | None) -> None:
        if found is not None:
            self._findings += found.findings
            self._drifting += found.drifting
            self._unchecked += found.unchecked

    async def _look(
        self, where: str, activity: Callable[[Any, ArgumentT], Awaitable[ResultT]], argument: ArgumentT, summary: str
    ) -> ResultT | None:
        """Run one look; one that fails is a finding of its own, and None."""
        try:
            result = await self._call(activity, argument, summary)
        except ActivityError as error:
            self._findings.append(_finding("cannot-look", where, error, "make status"))
            return None
        self._checked.append(where)
        return result

    async def _call(
        self, activity: Callable[[Any, ArgumentT], Awaitable[ResultT]], argument: ArgumentT, summary: str
    ) -> ResultT:
        try:
            return await call(activity, argument, LOOK, summary)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise ApplicationError("cancelled", type="Cancelled", non_retryable=True) from error
            raise


def _finding(code: str, where: str, error: ActivityError, command: str) -> Finding:
    """Return a failed look as a finding; the failure's own hint is the command, where it has one."""
    message, hint = explain(error).message, ""
    if isinstance(error.cause, ApplicationError) and error.cause.details:
        message, hint = error.cause.details[0]["message"], error.cause.details[0]["hint"]
    return Finding(code=code, where=where, message=message, command=hint or command)
