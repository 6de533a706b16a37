"""ConstitutionUpdate: the runbook. Its history shows the runbook's steps in the runbook's order, one activity each.

preconditions (signatures, regression gate, board) → stage → validate → lease → publish → sync → watch → confirm →
broadcast → archive. *Confirm* is the point of no return: a failure before it is undone, one after it never is.
Rules: docs/architecture.md, Workflows.
"""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from constitution.confirmation import confirmation_reason
from constitution.errors import ConflictError, EvidenceError, HeldError, InvalidRequestError
from constitution.listing import named
from constitution.messages import (
    DecideMessage,
    Outcome,
    Phase,
    RollbackResult,
    UpdateRequest,
    UpdateResult,
)
from constitution.release import Standing
from workflows import child_runs, policies
from workflows.calling import call
from workflows.input import NOTHING, read
from workflows.precondition_steps import PreconditionSteps
from workflows.status import command
from workflows.steering import Steering
from workflows.stepping import Failure, StepFailedError, StepInterruptedError, explain
from workflows.undo import Undo
from workflows.watch_step import WatchStep

with workflow.unsafe.imports_passed_through():
    from activities.archive import Archived, ArchiveInput
    from activities.broadcast import Announcement, Posted
    from activities.confirm import Confirm, StandingInput
    from activities.deployment import DeploymentInfo
    from activities.orders import FindHolds, Orders
    from activities.preconditions import (
        DecisionInput,
        DecisionResult,
        Preconditions,
        RecheckInput,
    )
    from activities.publish import (
        LeaseInput,
        LoadInput,
        Proof,
        Publish,
        Published,
    )
    from activities.stage import Stage, StageInput
    from activities.sync import SyncReport
    from activities.update_plan import UpdatePlan
    from activities.validate import Validate

STEPS = (
    "request",
    "signatures",
    "gate",
    "board",
    "stage",
    "validate",
    "lease",
    "publish",
    "sync",
    "watch",
    "confirm",
    "broadcast",
    "archive",
)
WATCHES = 3  # so often is a watch asked whose report no evidence backs; it ends at once, as its time is over
HINT = 'the input is one JSON object: {"checksum": "sha256:…", "change_request": "CR-142"}'


@workflow.defn(name=child_runs.UPDATE, failure_exception_types=[TypeError])
class ConstitutionUpdate(Steering):
    """Puts one signed, tested, approved document live, or leaves everything as it was.

    Input: one JSON object, ``constitution.messages.UpdateRequest``. Ends in exactly one outcome: completed
    (:class:`UpdateResult`), or failed with type ``Rejected`` (nothing live was touched) or ``RolledBack``.

    ``TypeError`` fails the run, because a worker without ``workflows.one_argument`` raises it at a start with two
    arguments, and the workflow task would be retried for ever.
    """

    def __init__(self) -> None:
        super().__init__(child_runs.UPDATE, STEPS)
        self._update: UpdatePlan | None = None
        self._evidence: str | None = None
        self._deciding = False
        self._preconditions = PreconditionSteps(self._stepper, self._journal)
        self._watch = WatchStep(self._stepper, self._journal, self._holds)
        self._undo = Undo(self._stepper, self._journal, self._steps)
        self._token = 0
        self._published: Published | None = None
        self._proof: Proof | None = None
        self._report: SyncReport | None = None

    @workflow.run
    async def run(self, raw: RawValue = NOTHING) -> UpdateResult:
        """Run the runbook."""
        return await self._shielded(asyncio.create_task(self._run(raw), name="runbook"))

    async def _run(self, raw: RawValue) -> UpdateResult:
        self._journal.set(update_id=str(workflow.uuid4()))
        self._info = info = await child_runs.deployment(self._journal)
        try:
            request = read(UpdateRequest, raw, hint=HINT)
            self._journal.set(change_request=request.change_request, checksum=request.checksum)
            result = await self._runbook(request, info)
        except InvalidRequestError as error:
            refusal = StepFailedError("request", Failure(error.code, error.diagnostics(), permanent=True))
            result = await self._end_unconfirmed(refusal, info)
        except (StepFailedError, StepInterruptedError) as error:
            result = await self._end_unconfirmed(error, info)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return result

    async def _runbook(self, request: UpdateRequest, info: DeploymentInfo) -> UpdateResult:
        self._update = update = await self._preconditions.resolve(request)
        if not request.dry_run:
            await self._steps.guard(info, archives_histories=True)
        gate = await self._preconditions.prepare(update)
        self._evidence = gate.evidence
        if request.dry_run:
            await self._stepper.run(
                "validate", Validate.validate_signature, update, policies.READ, summary="validate the signature"
            )
            return self._complete(update, "dry run: would be accepted; nothing was changed", None, None)
        self._watch.tenants, self._watch.test_evidence = info.tenants, gate.evidence
        await self._watch.preflight(update)  # before anybody signs; and again before publish, days later
        await self._decide_with_board(update)
        await self._stepper.run(
            "stage",
            Stage.stage_artifact,
            StageInput(update=update, document=request.document, signatures=request.signatures or ()),
            policies.WRITE,
            summary="stage the signed artifact in the store",
        )
        await self._stepper.run(
            "validate", Validate.validate_signature, update, policies.READ, summary="validate the signature"
        )
        await self._preconditions.wait_until_effective(update)
        update = await self._stepper.run(
            "lease",
            Preconditions.recheck,
            RecheckInput(update=update, evidence=gate.evidence, envelopes=self._board.envelopes),
            policies.READ,
            summary="look again: expiry, previous, approvals",
            manages_state=False,
        )
        self._update = update
        await self._watch.preflight(update)
        await self._take_lease(update)
        self._published = published = await self._publish(update, gate.evidence)
        self._proof = await self._steps.prove(published, update.rings, persistent=False)
        self._report = await self._sync(update, published)
        await self._watch_and_confirm(update, published)
        return await self._finish(update, published.generation)

    # the board

    async def _decide_with_board(self, update: UpdatePlan) -> None:
        self._deciding = True
        await self._progress("waits for the governance board")
        deadline = timedelta(seconds=update.deadlines.decisions)
        await self._board.decide(update.approvals_needed, for_=self._board_awaited(update), deadline=deadline)
        self._deciding = False

    async def _on_decide(self, message: DecideMessage) -> str:
        update, evidence, board = self._update, self._evidence, self._board
        if update is None or evidence is None or self._uninterruptible:
            raise ConflictError("the board is not asked now", hint=command("status"))
        answer: DecisionResult = await call(
            Preconditions.check_decision,
            DecisionInput(update=update, evidence=evidence, envelope=message.approval, seen=board.envelopes),
            policies.READ,
            "verify a board member's decision",
        )
        if answer.decision == "deny":
            if self._uninterruptible:
                raise ConflictError("this denial comes too late: the release is confirmed, or the run is ending")
            denied = board.deny(answer, message.approval)
            if not self._deciding or not board.missing(update.approvals_needed):
                self._stop = self._stop or denied  # after the quorum a denial stops the run, until it is live
            return "denied: the update is rejected, or undone"
        if not self._deciding:
            raise ConflictError("the board is not asked now", hint=command("status"))
        counted = board.approve(answer, message.approval)
        waiting = self._journal.status.phase is Phase.WAITING  # the deadline may have passed meanwhile
        if board.missing(update.approvals_needed) and waiting:
            self._journal.waiting("board", self._board_awaited(update), command("approve"))
        return counted

    def _board_awaited(self, update: UpdatePlan) -> str:
        missing, given = self._board.missing(update.approvals_needed), ", ".join(self._board.approvers)
        more = f"{missing} more board member{'s' if missing > 1 else ''}" if given else f"{missing} board members"
        return f"{more} to approve {update.change_request}" + (f" (approved by {given})" if given else "")

    # the point of danger: from the lease to the confirmation

    async def _take_lease(self, update: UpdatePlan) -> None:
        self._undo.of_lease()
        lease = await self._stepper.run(
            "lease",
            Publish.acquire_lease,
            LeaseInput(
                environment=update.environment,
                update_id=self._update_id,
                kind=update.kind,
                workflow_id=workflow.info().workflow_id,
            ),
            policies.WRITE,
            summary="take the environment's lease: one release at a time",
        )
        self._token = lease.fencing_token

    async def _publish(self, update: UpdatePlan, evidence: str) -> Published:
        await self._progress("is being published")
        self._undo.of_publish()
        published = await self._stepper.run(
            "publish",
            Publish.load_release,
            LoadInput(
                update=update,
                evidence=evidence,
                envelopes=self._board.envelopes,
                fencing_token=self._token,
                expected_generation=update.expected_generation,
            ),
            policies.WRITE,
            summary=f"publish {update.version}: POST /v1/constitution/load",
            manages_state=False,
        )
        self._journal.set(generation=published.generation)
        self._journal.identify()
        return published

    async def _sync(self, update: UpdatePlan, published: Published) -> SyncReport:
        report = await self._steps.sync(
            published.generation,
            seconds=update.deadlines.sync,
            summary="every target answers with the new policy hash, and decides as the document says",
            undoes=False,
        )
        self._journal.step("sync", "done", detail=f"obeyed by {report.obeyed_by()}")
        return report

    async def _watch_and_confirm(self, update: UpdatePlan, published: Published) -> None:
        """Confirm what an assessor signed and nobody holds; a report without it was made up, and is asked for again."""
        asked = 0
        while True:
            await self._watch.watch(update, published)
            try:
                return await self._confirm(update, published)
            except StepFailedError as error:
                asked += 1
                code = error.failure.code
                if code not in {EvidenceError.code, HeldError.code} or asked >= WATCHES:
                    raise
                self._journal.refused(f"not confirmed: {error.failure.message}")
                if code == HeldError.code:  # a resume that was made up, a hold of the last moment, or before a reset
                    await self._learn_holds(update)
                else:
                    self._watch.forget_evidence()
                    self._report = await self._sync(update, published)

    async def _learn_holds(self, update: UpdatePlan) -> None:
        standing = await self._stepper.run(
            "watch",
            Orders.find_holds,
            FindHolds(environment=update.environment, update_id=self._update_id),
            policies.READ,
            summary="who holds the release",
            manages_state=False,
        )
        self._holds.add(*standing.held)

    async def _confirm(self, update: UpdatePlan, published: Published) -> None:
        self._confirming = True
        try:
            said = await self._stepper.run(
                "confirm",
                Confirm.record_standing,
                StandingInput(
                    environment=update.environment,
                    generation=published.generation,
                    standing=Standing.CONFIRMED,
                    reason=self._why_confirmed(),
                    update_id=self._update_id,
                    fencing_token=self._token,
                    orders=self._orders.get(("promote", None), ()),
                ),
                policies.CONFIRM,
                summary="look again at its delivery, then confirm the release: the point of no return",
            )
        finally:
            self._confirming = False
        self._uninterruptible = True
        if said.verdict is not None and said.verdict is not self._watch.verdict:
            self._watch.saw(said.verdict)
        self._journal.set(phase=Phase.RUNNING)

    def _why_confirmed(self) -> str:
        """Say what the confirmation rests on; all records of the run say it in these words."""
        return confirmation_reason(
            self._watch.verdict,
            promoted_by=self._holds.promoted or "",
            resumed=self._holds.resumed,
            cut_short=self._watch.cut_short,
        )

    # records: nothing here ever undoes a release

    async def _finish(self, update: UpdatePlan, generation: int) -> UpdateResult:
        """Announce and archive; without proof only if this run was reset, after the former run had confirmed."""
        await self._steps.release_lease(self._token)
        why = self._why_confirmed()
        confirmed = f"was confirmed as generation {generation}: {why}"  # the past tense stays true after an undo
        announcement = self._announcement(update, Outcome.COMPLETED, why)
        told = f"announce in {update.channel}: {announcement.outcome}"
        # After an undo that found the release confirmed there is nothing left to undo.
        posted = await self._books.announce_confirmed(announcement, told, final=self._undo.confirmed is not None)
        self._undo.compensations.forget()
        await self._progress(confirmed, final=True)  # after the announcement: Slack may be down before it
        archived = await self._books.archive(self._proof, self._archive_input(generation))
        detail = f"{update.version} {confirmed}"
        await self._books.audit_outcome(
            "archive",
            "update.completed",
            success=True,
            message=detail,
            details=self._facts(generation),
            event_id=f"{self._update_id}/update.completed",  # also of a run that was reset after it had said so
        )
        result = self._complete(update, detail, posted, archived)
        if self._report is None:
            return result
        silent = {"unreachable": self._report.unreachable, "more_unreachable": self._report.more_unreachable}
        return result.model_copy(update=silent)

    def _archive_input(self, generation: int) -> tuple[ArchiveInput, str]:
        archive_input = ArchiveInput(
            environment=self._journal.status.environment or "",
            generation=generation,
            outcome=Outcome.COMPLETED.value,
            watch_evidence=self._watch.evidence,
        )
        return archive_input, "document, signatures, approvals and evidence into the legal archive"

    def _facts(self, generation: int | None) -> dict[str, object]:
        """Return the fields that every record of this run's end carries, for searches."""
        status = self._journal.status
        return {
            "generation": generation,
            "version": status.version,
            "checksum": status.checksum,
            "change_request": status.change_request,
            "verdict": self._watch.verdict.value if self._watch.verdict else None,
            "approvers": list(status.approvers),
            **({"promoted_by": self._holds.promoted} if self._holds.promoted else {}),
        }

    def _complete(
        self, update: UpdatePlan, detail: str, posted: Posted | None, archived: Archived | None
    ) -> UpdateResult:
        self._journal.close(Outcome.COMPLETED, detail)
        published = self._published
        return UpdateResult(
            outcome=Outcome.COMPLETED,
            environment=update.environment,
            update_id=self._update_id,
            version=update.version,
            checksum=update.checksum,
            generation=published.generation if published else self._undo.confirmed,
            effective_at=published.effective_at if published else None,
            verdict=self._watch.verdict,
            approvers=self._journal.status.approvers,
            slack_permalink=posted.permalink if posted else "",
            archive_commit=archived.commit if archived else "",
        )

    # undo

    async def _end_unconfirmed(
        self, error: StepFailedError | StepInterruptedError, info: DeploymentInfo
    ) -> UpdateResult:
        """Undo, announce, and end as Rejected or RolledBack: the outcome is true (invariant 4), and says why it began.

        Returns only if the undo finds that the release *is* confirmed: the answer to *confirm* was lost, or a person
        said abort in the same moment. Then the point of no return has been passed and the run completes.
        """
        cause, notes = await self._unwind(error, info)
        undo, update = self._undo, self._update
        if undo.confirmed is not None and update is not None:
            self._token = undo.token
            self._stepper.persistent_phase = Phase.RECORDS_PENDING
            self._journal.step("confirm", "done", detail=f"confirmed before it could be undone ({cause})")
            return await self._finish(update, undo.confirmed)
        if undo.rollback is not None:
            outcome, detail = Outcome.ROLLED_BACK, _rolled_back(undo.rollback, undo.cause)
        elif undo.undone is not None:  # and told, by the rollback; this run was reset to a point before
            outcome, detail = Outcome.ROLLED_BACK, f"generation {undo.undone} had been rolled back: {cause}"
        else:
            outcome, detail = Outcome.REJECTED, f"rejected, nothing live was touched: {cause}"
            await self._tell_rejection(info, cause)
        kind, ended = (
            ("RolledBack", "was rolled back") if outcome is Outcome.ROLLED_BACK else ("Rejected", "was rejected")
        )
        await self._progress(f"{ended}: {cause}", final=True)
        self._journal.close(outcome, detail + notes)
        await workflow.wait_condition(workflow.all_handlers_finished)
        status = self._journal.status.model_dump(mode="json")
        raise ApplicationError(detail + notes, status, type=kind, non_retryable=True)

    async def _unwind(self, error: StepFailedError | StepInterruptedError, info: DeploymentInfo) -> tuple[str, str]:
        """Undo everything; return why, and the failed undos, in words."""
        self._uninterruptible = True  # nothing interrupts an undo
        self._deciding = False
        self._stepper.persistent_phase = Phase.ROLLING_BACK
        cause = error.failure.message if isinstance(error, StepFailedError) else error.reason
        step = error.step if isinstance(error, StepFailedError) else (self._journal.status.step or "request")
        self._journal.step(step, "failed", error=cause)
        self._journal.set(phase=Phase.ROLLING_BACK, waiting_for="", next_command="")
        self._undo.cause = f"{step}: {cause}"
        self._undo.watch_evidence = self._watch.evidence
        failures = await self._undo.unwind(info)
        return cause, "".join(f"; {name} was not undone: {explain(failure).message}" for name, failure in failures)

    async def _tell_rejection(self, info: DeploymentInfo, cause: str) -> None:
        update, status, me = self._update, self._journal.status, workflow.info()
        announcement = (
            self._announcement(update, Outcome.REJECTED, cause)
            if update
            else Announcement(
                key=f"{self._update_id}/rejected",
                update_id=self._update_id,
                environment=info.environment,
                outcome=Outcome.REJECTED,
                checksum=status.checksum,
                change_request=status.change_request,
                reason=cause,
                workflow_id=me.workflow_id,
                run_id=me.run_id,
            )
        )
        await self._books.refused(
            announcement,
            self._board,
            what="update",
            summary=f"announce in {info.channel}: rejected",
            message=cause,
            details=self._facts(None),
            version=status.version,
            checksum=status.checksum,
            change_request=status.change_request,
        )

    # announcements

    @property
    def _update_id(self) -> str:
        return self._journal.status.update_id or ""

    def _announcement(self, update: UpdatePlan, outcome: Outcome, reason: str) -> Announcement:
        published = self._published
        return Announcement(
            key=f"{self._update_id}/{outcome.value}",
            environment=update.environment,
            outcome=outcome,
            version=update.version,
            checksum=update.checksum,
            generation=published.generation if published else self._undo.confirmed,
            effective_at=published.effective_at if published else None,
            summary=update.summary,
            reason=reason,
            approvers=self._journal.status.approvers,
            change_request=update.change_request,
            workflow_id=update.workflow_id,
            run_id=update.run_id,
            update_id=self._update_id,
        )

    async def _progress(self, line: str, *, final: bool = False) -> None:
        if self._update is not None:
            await self._books.progress(self._update, line, final=final)


def _rolled_back(result: RollbackResult, cause: str) -> str:
    restored = f"{result.version} was restored" if result.version else "the constitution was withdrawn"
    silent = named(result.unreachable, result.more_unreachable)
    missing = f"; did not answer: {silent}" if silent else ""
    return f"rolled back, {restored} as generation {result.generation}{missing}: {cause}"
