"""ConstitutionUpdate: the runbook. Its history shows the runbook's steps in the runbook's order, one activity each.

preconditions (signatures, regression gate, board) → stage → validate → lease → publish → sync → watch → confirm →
broadcast → archive. *Confirm* is the point of no return: whatever fails before it is undone, nothing after it ever is.
Rules: docs/architecture.md, Workflows.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError

from constitution.confirmation import confirmation_reason
from constitution.errors import ConflictError, EvidenceError, InvalidRequestError, NotApprovedError
from constitution.messages import (
    DecideMessage,
    Outcome,
    Phase,
    RollbackRequest,
    RollbackResult,
    UpdateRequest,
    UpdateResult,
)
from constitution.names import Names
from constitution.release import Envelope, Standing, Verdict
from workflows import family, policies
from workflows.calling import call
from workflows.compensation import Compensations
from workflows.controls import Controls
from workflows.family import GuardRequest
from workflows.journal import SUMMARY, clipped, command
from workflows.reading import NOTHING, read
from workflows.stepping import Failure, StepFailedError, StepInterruptedError, StepSkippedError, explain

with workflow.unsafe.imports_passed_through():
    from activities.archive import Archived, ArchiveInput, ArchiveRelease, SiemInput
    from activities.broadcast import Announcement, Broadcast, Posted, ProgressInput
    from activities.confirm import Confirm, StandingInput
    from activities.deployment import DeploymentInfo
    from activities.expected_change import ExpectedChange, PredictInput
    from activities.preconditions import (
        DecisionInput,
        DecisionResult,
        GateResult,
        Preconditions,
        RecheckInput,
        ResolveInput,
    )
    from activities.publish import (
        LeaseInput,
        LoadInput,
        Proof,
        ProveInput,
        Publish,
        Published,
        ReleaseLeaseInput,
    )
    from activities.restore import FenceInput, Restore
    from activities.stage import Stage, StageInput
    from activities.subject import Subject
    from activities.sync import GoldenInput, Sync, SyncInput, SyncReport
    from activities.validate import Validate
    from activities.watch import Watch, WatchInput, WatchReport

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
LONGEST_PREDICTED = 300  # characters of one of its lines
MOST_PREDICTED = 12  # lines of the expected change in status and details; the evidence holds all
HINT = 'the input is one JSON object: {"checksum": "sha256:…", "change_request": "CR-142"}'


@workflow.defn(name=family.UPDATE, failure_exception_types=[TypeError])
class ConstitutionUpdate(Controls):
    """Puts one signed, tested, approved document live, or leaves everything as it was.

    Input: one JSON object, ``constitution.messages.UpdateRequest``. Ends in exactly one outcome: completed
    (:class:`UpdateResult`), or failed with type ``Rejected`` (nothing live was touched) or ``RolledBack``.

    ``TypeError`` fails the run, because a worker without ``workflows.arguments`` raises it at a start with two
    arguments, and the workflow task would be retried for ever.
    """

    def __init__(self) -> None:
        super().__init__(family.UPDATE, STEPS)
        self._subject: Subject | None = None
        self._evidence: str | None = None
        self._decisions: dict[str, Envelope] = {}
        self._deciding = False
        self._undo = Compensations()
        self._fenced = 0
        self._token = 0
        self._published: Published | None = None
        self._cut_short = False
        self._verdict: Verdict | None = None
        self._watch_evidence: str | None = None
        self._proof: Proof | None = None
        self._report: SyncReport | None = None
        self._rollback: RollbackResult | None = None
        self._confirmed_late: int | None = None
        self._undone: int | None = None
        self._progress_at: Posted | None = None
        self._keeping: asyncio.Task[None] | None = None

    @workflow.run
    async def run(self, raw: RawValue = NOTHING) -> UpdateResult:
        """Run the runbook."""
        return await self._shielded(asyncio.create_task(self._run(raw), name="runbook"))

    async def _run(self, raw: RawValue) -> UpdateResult:
        self._journal.set(update_id=str(workflow.uuid4()))
        info = await family.deployment(self._journal)
        try:
            request = read(UpdateRequest, raw, hint=HINT)
            self._journal.set(change_request=request.change_request, checksum=request.checksum)
            result = await self._runbook(request, info)
        except InvalidRequestError as error:
            refusal = StepFailedError("request", Failure(error.code, error.diagnostics(), permanent=True))
            result = await self._fail(refusal, info)
        except (StepFailedError, StepInterruptedError) as error:
            result = await self._fail(error, info)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return result

    async def _runbook(self, request: UpdateRequest, info: DeploymentInfo) -> UpdateResult:
        subject = await self._resolve(request)
        if not request.dry_run:
            await self._guarded(info)
        gate = await self._prepare(subject)
        if request.dry_run:
            await self._stepper.run(
                "validate", Validate.validate_signature, subject, policies.READ, summary="validate the signature"
            )
            return self._complete(subject, "dry run: would be accepted; nothing was changed", None, None)
        await self._preflight(subject, info)  # before anybody signs; and again before publish, days later
        await self._decide_with_board(subject)
        await self._stepper.run(
            "stage",
            Stage.stage_artifact,
            StageInput(subject=subject, document=request.document, signatures=request.signatures or ()),
            policies.WRITE,
            summary="stage the signed artifact in the store",
        )
        await self._stepper.run(
            "validate", Validate.validate_signature, subject, policies.READ, summary="validate the signature"
        )
        await self._wait_until_effective(subject)
        subject = await self._stepper.run(
            "lease",
            Preconditions.recheck,
            RecheckInput(subject=subject, evidence=gate.evidence, envelopes=self._envelopes()),
            policies.READ,
            summary="look again: expiry, previous, approvals",
            manages_state=False,
        )
        self._subject = subject
        await self._preflight(subject, info)
        await self._take_lease(subject)
        published = await self._publish(subject, gate.evidence)
        self._proof = proof = await self._prove(subject, published)
        self._report = report = await self._sync(subject, published)
        await self._watch_and_confirm(subject, published, info)
        return await self._record(subject, published.generation, proof, report)

    # preconditions

    async def _resolve(self, request: UpdateRequest) -> Subject:
        info = workflow.info()
        subject = await self._stepper.run(
            "request",
            Preconditions.resolve_subject,
            ResolveInput(
                request=request,
                update_id=self._update_id,
                workflow_id=info.workflow_id,
                run_id=info.run_id,
            ),
            policies.READ,
            summary=f"what {request.change_request} asks for, and every problem with it",
        )
        self._subject = subject
        self._stepper.person_deadline = timedelta(seconds=subject.deadlines.person)
        self._journal.set(
            checksum=subject.checksum,
            version=subject.version,
            previous=subject.previous.checksum if subject.previous else None,
            strategy="a first release has no baseline: not watched"
            if subject.first
            else f"{subject.strategy_name}: {subject.strategy.words()}",
            plan=subject.plan,
        )
        self._journal.identify()
        return subject

    async def _prepare(self, subject: Subject) -> GateResult:
        signatures = await self._stepper.run(
            "signatures",
            Preconditions.verify_signatures,
            subject,
            policies.READ,
            summary="verify the maintainers' signatures",
        )
        self._journal.step("signatures", "done", detail="signed by " + ", ".join(signatures.signers))
        gate = await self._stepper.run(
            "gate",
            Preconditions.run_regression_gate,
            subject,
            policies.gate(subject.deadlines.gate),
            summary="run the regression gate on these very bytes",
        )
        predicted = await self._stepper.run(
            "gate",
            ExpectedChange.predict_shift,
            PredictInput(subject=subject, evidence=gate.evidence),
            policies.READ,
            summary="replay recorded requests through the candidate: the expected change",
            manages_state=False,
        )
        gate = gate.model_copy(update={"evidence": predicted.evidence})
        self._journal.step("gate", "done", detail="; ".join((*gate.suites, predicted.lines[0])))
        self._evidence = gate.evidence
        shown = tuple(line[:LONGEST_PREDICTED] for line in predicted.lines[:MOST_PREDICTED])
        self._journal.set(evidence=gate.evidence, predicted=shown)
        return gate

    async def _decide_with_board(self, subject: Subject) -> None:
        self._deciding = True
        await self._progress("waits for the governance board")

        def decided() -> bool:
            return self._denied is not None or len(self._decisions) >= subject.approvals_needed

        in_time = await self._stepper.wait(
            "board",
            decided,
            for_=self._board_awaited(subject),
            next_command=command("approve"),
            deadline=timedelta(seconds=subject.deadlines.decisions),
        )
        self._deciding = False
        if self._denied is not None:
            raise StepFailedError("board", Failure(NotApprovedError.code, self._denied, permanent=True))
        if not in_time:
            why = f"the board's deadline passed with {len(self._decisions)} of {subject.approvals_needed} approvals"
            raise StepFailedError("board", Failure(NotApprovedError.code, why, permanent=True))
        self._journal.step("board", "done", detail="approved by " + ", ".join(sorted(self._decisions)))

    async def _on_decide(self, message: DecideMessage) -> str:
        if self._subject is None or self._evidence is None or self._live:
            raise ConflictError("the board is not asked now", hint=command("status"))
        answer: DecisionResult = await call(
            Preconditions.check_decision,
            DecisionInput(
                subject=self._subject, evidence=self._evidence, envelope=message.approval, seen=self._envelopes()
            ),
            policies.READ,
            "verify a board member's decision",
        )
        if answer.decision == "deny":
            if self._live:
                raise ConflictError("this denial comes too late: the release is confirmed, or the run is ending")
            self._denied = f"{answer.person} denied: {answer.reason}"
            self._denial = (answer.person, message.approval)
            if not self._deciding or len(self._decisions) >= self._subject.approvals_needed:
                self._stop = self._stop or self._denied  # after the quorum a denial stops the run, until it is live
            return "denied: the update is rejected, or undone"
        if not self._deciding:
            raise ConflictError("the board is not asked now", hint=command("status"))
        self._decisions.setdefault(answer.person, message.approval)
        self._journal.set(approvers=tuple(sorted(self._decisions)))
        missing = len(self._decisions) < self._subject.approvals_needed
        if missing and self._journal.status.phase is Phase.WAITING:  # the deadline may have passed meanwhile
            self._journal.waiting("board", self._board_awaited(self._subject), command("approve"))
        return f"approval of {answer.person} counted: {len(self._decisions)} of {answer.needed}"

    def _board_awaited(self, subject: Subject) -> str:
        missing, given = subject.approvals_needed - len(self._decisions), ", ".join(sorted(self._decisions))
        more = f"{missing} more board member{'s' if missing > 1 else ''}" if given else f"{missing} board members"
        return f"{more} to approve {subject.change_request}" + (f" (approved by {given})" if given else "")

    def _envelopes(self) -> tuple[Envelope, ...]:
        return tuple(self._decisions[person] for person in sorted(self._decisions))

    async def _wait_until_effective(self, subject: Subject) -> None:
        moments = [moment for moment in (subject.effective_at, subject.not_before) if moment is not None]
        if moments and max(moments) > workflow.now():
            await self._stepper.wait(
                "lease",
                lambda: False,
                for_=f"{max(moments).isoformat(timespec='seconds')}, when the release may take effect",
                next_command=command("abort", "--reason", "'stopped by hand'"),
                deadline=max(moments) - workflow.now(),
            )

    async def _preflight(self, subject: Subject, info: DeploymentInfo) -> None:
        """Find out before publish whether the watch could see; where it could not, do as the strategy declares."""
        strategy = subject.strategy
        if subject.first or strategy.watch_seconds == 0:
            return
        while True:
            look = await self._stepper.run(
                "watch",
                Watch.check_watch,
                self._watch_input(subject, None, info, strategy.watch_seconds),
                policies.READ,
                summary="is the watched metric there, fresh, moving and calm",
                manages_state=False,
            )
            self._journal.step("watch", "pending", detail=look.power)
            if look.ready:
                return
            action = strategy.on_no_data if look.verdict is Verdict.NO_DATA else strategy.on_cannot_tell
            if action == "continue":
                return
            verdict = look.verdict.value if look.verdict else Verdict.CANNOT_TELL.value
            failure = Failure(verdict, f"not published blind: {look.detail}", permanent=True)
            if not (action == "hold" and await self._stepper.ask("watch", failure)):
                raise StepFailedError("watch", failure)

    # the point of danger: from the lease to the confirmation

    async def _guarded(self, info: DeploymentInfo) -> None:
        started = asyncio.Event()
        request = GuardRequest(
            parent=family.myself(),
            update_id=self._update_id,
            environment=info.environment,
            namespace=info.namespace,
            seals=True,
        )
        self._keeping = asyncio.create_task(family.keep_guard(request, started), name="guard")
        await workflow.wait_condition(started.is_set)

    async def _take_lease(self, subject: Subject) -> None:
        self._undo.register("lease", self._give_lease_back)
        lease = await self._stepper.run(
            "lease",
            Publish.acquire_lease,
            LeaseInput(
                environment=subject.environment,
                update_id=self._update_id,
                kind=subject.kind,
                workflow_id=workflow.info().workflow_id,
            ),
            policies.WRITE,
            summary="take the environment's lease: one release at a time",
        )
        self._token = lease.fencing_token

    async def _publish(self, subject: Subject, evidence: str) -> Published:
        await self._progress("is being published")
        self._undo.register("publish", self._roll_back)
        published = await self._stepper.run(
            "publish",
            Publish.load_release,
            LoadInput(
                subject=subject,
                evidence=evidence,
                envelopes=self._envelopes(),
                fencing_token=self._token,
                expected_generation=subject.expected_generation,
            ),
            policies.WRITE,
            summary=f"publish {subject.version}: POST /v1/constitution/load",
            manages_state=False,
        )
        self._published = published
        self._journal.set(generation=published.generation)
        self._journal.identify()
        return published

    async def _prove(self, subject: Subject, published: Published) -> Proof:
        proof = await self._stepper.run(
            "publish",
            Publish.prove_published,
            ProveInput(
                environment=subject.environment,
                generation=published.generation,
                checksum=published.checksum,
                event_id=published.event_id,
                rings=subject.rings,
                effective_at=published.effective_at,
            ),
            policies.PROVE,
            summary=f"read generation {published.generation} back from Postgres, Redis and Kafka",
        )
        where = f"partition {proof.partition}, offset {proof.offset}"
        self._journal.step("publish", "done", detail=f"generation {published.generation}, {where}")
        return proof

    async def _sync(self, subject: Subject, published: Published) -> SyncReport:
        report = await self._stepper.run(
            "sync",
            Sync.sync_targets,
            SyncInput(
                environment=subject.environment,
                generation=published.generation,
                checksum=published.checksum,
                rings=subject.rings,
                deadline_seconds=subject.deadlines.sync,
                require_all=True,
            ),
            policies.sync(subject.deadlines.sync),
            summary="every target answers with the new policy hash",
            manages_state=not subject.first,
        )
        if subject.first and published.checksum is not None:
            await self._stepper.run(
                "sync",
                Sync.run_golden_vectors,
                GoldenInput(
                    environment=subject.environment,
                    generation=published.generation,
                    checksum=published.checksum,
                    rings=subject.rings,
                ),
                policies.sync(subject.deadlines.sync),
                summary="golden vectors: every engine decides as the document says",
            )
        self._journal.step("sync", "done", detail="obeyed by " + ", ".join(report.converged))
        return report

    async def _watch(self, subject: Subject, published: Published, info: DeploymentInfo) -> None:
        strategy = subject.strategy
        if subject.first or strategy.watch_seconds == 0:
            self._saw(Verdict.NOT_APPLICABLE if subject.first else Verdict.NOT_WATCHED)
            self._journal.step("watch", "done", detail=self._verdict.value if self._verdict else "")
            return
        seconds, extended = float(strategy.watch_seconds), False
        while True:
            report = await self._watch_for(subject, published, info, seconds)
            if report is None:
                return
            action = {
                Verdict.OK: "continue",
                Verdict.ANOMALY: strategy.on_anomaly,
                Verdict.NO_DATA: strategy.on_no_data,
            }.get(report.verdict, strategy.on_cannot_tell)
            if action == "extend_once" and not extended:
                extended = True
                seconds += strategy.watch_seconds
            elif action == "rollback":
                self._journal.step("watch", "failed", detail=report.detail, error=report.detail)
                raise StepFailedError("watch", Failure(report.verdict.value, report.detail, permanent=True))
            elif action == "continue" and self._held is None:
                self._journal.step("watch", "done", detail=report.detail)
                return
            elif await self._hold(subject, published, info, report):
                return

    async def _watch_for(
        self,
        subject: Subject,
        published: Published,
        info: DeploymentInfo,
        seconds: float,
        until: Callable[[], bool] | None = None,
    ) -> WatchReport | None:
        """Watch until ``seconds`` after the publish; None when somebody promoted meanwhile, or ``until`` came true."""
        try:
            report = await self._stepper.run(
                "watch",
                Watch.watch_metric,
                self._watch_input(subject, published, info, seconds),
                policies.watch(seconds),
                summary=f"watch policy_engine_evaluations_total for {seconds:.0f} s",
                until=until or (lambda: self._promoted is not None),
                manages_state=False,
            )
        except StepSkippedError:
            if until is None:
                self._saw(Verdict.CANNOT_TELL)
                self._cut_short = True
                self._journal.step("watch", "done", detail=f"promoted by {self._promoted} before the watch had ended")
            return None
        self._saw(report.verdict)
        self._cut_short = False
        self._watch_evidence = report.evidence
        return report

    async def _hold(self, subject: Subject, published: Published, info: DeploymentInfo, report: WatchReport) -> bool:
        """Wait for a person while the watch goes on; True when the release may be confirmed."""
        deadline = workflow.now() + timedelta(seconds=subject.deadlines.hold)
        why = self._held or report.detail
        self._held = why
        # One watch for the whole hold: slices of a minute make 10,000 events a day, and an alarm that is only observed
        # ends each slice at once.
        seen: WatchReport | None = report
        while not self._released():
            if workflow.now() >= deadline:
                raise StepFailedError(
                    "watch", Failure("hold-deadline", f"nobody ended the hold: {why}", permanent=True)
                )
            for_ = f"a person to resume, promote or abort ({why}) until {deadline.isoformat(timespec='seconds')}"
            left = deadline - workflow.now()
            if seen is not None and seen.verdict is Verdict.ANOMALY:
                await self._stepper.wait(
                    "watch", self._released, for_=for_, next_command=command("resume"), deadline=left
                )
                continue
            self._journal.waiting("watch", for_, command("resume"))
            elapsed = (workflow.now() - published.effective_at).total_seconds()
            seen = await self._watch_for(subject, published, info, elapsed + left.total_seconds(), until=self._released)
            if seen is not None and seen.verdict is Verdict.ANOMALY and subject.strategy.on_anomaly == "rollback":
                raise StepFailedError("watch", Failure(Verdict.ANOMALY.value, seen.detail, permanent=True))
        self._journal.set(waiting_for="", next_command="", phase=Phase.RUNNING)
        by = f"promoted by {self._promoted}" if self._promoted else f"resumed: {self._resumed}"
        self._journal.step("watch", "done", detail=f"{by}; the watch had said {report.verdict.value}: {report.detail}")
        return True

    def _watch_input(
        self, subject: Subject, published: Published | None, info: DeploymentInfo, seconds: float
    ) -> WatchInput:
        return WatchInput(
            environment=subject.environment,
            update_id=self._update_id,
            generation=published.generation if published else None,
            published_at=published.effective_at if published else None,
            strategy=subject.strategy,
            until_seconds=seconds,
            tenants=info.tenants,
            evidence=self._evidence,
        )

    def _released(self) -> bool:
        return self._held is None or self._promoted is not None

    def _saw(self, verdict: Verdict) -> None:
        self._verdict = verdict
        self._journal.verdict(verdict)

    async def _watch_and_confirm(self, subject: Subject, published: Published, info: DeploymentInfo) -> None:
        """Confirm what evidence backs; a report without it was made up, and the watch is asked again."""
        asked = 0
        while True:
            await self._watch(subject, published, info)
            await self._wait_while_held(subject)
            try:
                return await self._confirm(subject, published)
            except StepFailedError as error:
                asked += 1
                if error.failure.code != EvidenceError.code or asked >= WATCHES:
                    raise
                self._watch_evidence = None
                self._journal.refused(f"not confirmed: {error.failure.message}")

    async def _wait_while_held(self, subject: Subject) -> None:
        """Keep the promise of ``hold`` also where nothing is watched, or where it came after the watch's end."""
        if self._released():
            return
        why = self._held
        deadline = timedelta(seconds=subject.deadlines.hold)
        until = (workflow.now() + deadline).isoformat(timespec="seconds")
        if not await self._stepper.wait(
            "watch",
            self._released,
            for_=f"a person to resume, promote or abort ({why}) until {until}",
            next_command=command("resume"),
            deadline=deadline,
        ):
            raise StepFailedError("watch", Failure("hold-deadline", f"nobody ended the hold: {why}", permanent=True))
        self._journal.step("watch", "done", detail="resumed" if not self._promoted else f"promoted by {self._promoted}")

    async def _confirm(self, subject: Subject, published: Published) -> None:
        self._confirming = True
        try:
            said = await self._stepper.run(
                "confirm",
                Confirm.record_standing,
                StandingInput(
                    environment=subject.environment,
                    generation=published.generation,
                    standing=Standing.CONFIRMED,
                    reason=self._why_confirmed(),
                    update_id=self._update_id,
                    fencing_token=self._token,
                    watch_evidence=self._watch_evidence,
                    orders=self._orders.get(("promote", None), ()),
                    workflow_id=workflow.info().workflow_id,
                    sync_seconds=subject.deadlines.sync,
                ),
                policies.confirm(subject.deadlines.sync),
                summary="look again at what decides, then confirm the release: the point of no return",
            )
        finally:
            self._confirming = False
        self._live = True
        if said.verdict is not None and said.verdict is not self._verdict:
            self._saw(said.verdict)
        self._undo.forget()
        self._journal.set(phase=Phase.RUNNING)

    def _why_confirmed(self) -> str:
        """Say what the confirmation rests on; all records of the run say it in these words."""
        return confirmation_reason(
            self._verdict, promoted_by=self._promoted or "", resumed=self._resumed, cut_short=self._cut_short
        )

    # records: nothing here ever undoes a release

    async def _record(
        self, subject: Subject, generation: int, proof: Proof | None, report: SyncReport | None
    ) -> UpdateResult:
        """Tell and archive; without proof only if this run was reset, after it had confirmed in the life cut off."""
        await self._release_lease(self._token)
        why = self._why_confirmed()
        said = f"was confirmed as generation {generation}: {why}"  # the past: it stays true when it is undone later
        posted = await self._persist_broadcast(self._announcement(subject, Outcome.COMPLETED, why))
        await self._progress(said, final=True)  # after the telling: only then Slack answers again after an outage
        archived = await self._persist_archive(generation, proof)
        detail = f"{subject.version} {said}"
        await self._audit_outcome(
            "archive", "update.completed", success=True, message=detail, details=self._facts(generation)
        )
        result = self._complete(subject, detail, posted, archived)
        return result.model_copy(update={"unreachable": report.unreachable if report else ()})

    def _facts(self, generation: int | None) -> dict[str, object]:
        """Return what every record of this run's end says, for those who search by field."""
        status = self._journal.status
        return {
            "generation": generation,
            "version": status.version,
            "checksum": status.checksum,
            "change_request": status.change_request,
            "verdict": self._verdict.value if self._verdict else None,
            "approvers": list(status.approvers),
            **({"promoted_by": self._promoted} if self._promoted else {}),
        }

    async def _persist_broadcast(self, announcement: Announcement) -> Posted | None:
        try:
            return await self._stepper.run(
                "broadcast",
                Broadcast.announce,
                announcement,
                policies.SLACK,
                summary=f"tell {announcement.channel}: {announcement.outcome}",
                persistent=True,
            )
        except StepSkippedError:
            return None

    async def _persist_archive(self, generation: int, proof: Proof | None) -> Archived | None:
        environment = self._journal.status.environment or ""
        try:
            if proof is not None:
                await self._stepper.run(
                    "archive",
                    ArchiveRelease.confirm_siem,
                    SiemInput(environment=environment, events=proof.events),
                    policies.SIEM,
                    summary="the SIEM's group has passed the event's offset",
                    persistent=True,
                    manages_state=False,
                )
            return await self._stepper.run(
                "archive",
                ArchiveRelease.archive_release,
                ArchiveInput(
                    environment=environment,
                    generation=generation,
                    outcome=Outcome.COMPLETED.value,
                    verdict=self._verdict,
                    reason=self._why_confirmed(),
                    watch_evidence=self._watch_evidence,
                    approvers=self._journal.status.approvers,
                ),
                policies.GIT,
                summary="document, signatures, approvals and evidence into the legal archive",
                persistent=True,
            )
        except StepSkippedError:
            return None

    def _complete(
        self, subject: Subject, detail: str, posted: Posted | None, archived: Archived | None
    ) -> UpdateResult:
        self._journal.close(Outcome.COMPLETED, detail)
        published = self._published
        return UpdateResult(
            outcome=Outcome.COMPLETED,
            environment=subject.environment,
            update_id=self._update_id,
            version=subject.version,
            checksum=subject.checksum,
            generation=published.generation if published else self._confirmed_late,
            effective_at=published.effective_at if published else None,
            verdict=self._verdict,
            approvers=self._journal.status.approvers,
            slack_permalink=posted.permalink if posted else "",
            archive_commit=archived.commit if archived else "",
        )

    # undo

    async def _fail(self, error: StepFailedError | StepInterruptedError, info: DeploymentInfo) -> UpdateResult:
        """Undo, tell, and end as Rejected or RolledBack: the outcome says what is true, and why it began.

        Returns only if the undo finds that the release *is* confirmed: the answer to *confirm* was lost, or a person
        said abort in the same moment. Then the point of no return has been passed and the run completes.
        """
        self._live = True  # nothing interrupts an undo
        self._deciding = False
        self._stepper.persistent_phase = Phase.ROLLING_BACK
        cause = error.failure.message if isinstance(error, StepFailedError) else error.reason
        step = error.step if isinstance(error, StepFailedError) else (self._journal.status.step or "request")
        self._journal.step(step, "failed", error=cause)
        self._journal.set(phase=Phase.ROLLING_BACK, waiting_for="", next_command="")
        self._info, self._cause = info, f"{step}: {cause}"
        if await family.was_reset():
            await self._take_over()
        failures = await self._undo.unwind()
        notes = "".join(f"; {name} was not undone: {explain(failure).message}" for name, failure in failures)
        if self._confirmed_late is not None and self._subject:
            self._token = self._fenced
            self._stepper.persistent_phase = Phase.RECORDS_PENDING
            self._journal.step("confirm", "done", detail=f"confirmed before it could be undone ({cause})")
            return await self._record(self._subject, self._confirmed_late, self._proof, self._report)
        if self._rollback is not None:
            detail = self._rolled_back(self._rollback)
            outcome, kind = Outcome.ROLLED_BACK, "RolledBack"
        elif self._undone is not None:  # and told, by the rollback; this run was reset to a point before
            detail = f"generation {self._undone} had been rolled back: {cause}"
            outcome, kind = Outcome.ROLLED_BACK, "RolledBack"
        else:
            outcome, kind = Outcome.REJECTED, "Rejected"
            detail = f"rejected, nothing live was touched: {cause}"
            await self._tell_rejection(info, cause)
        ended = "was rolled back" if outcome is Outcome.ROLLED_BACK else "was rejected"
        await self._progress(f"{ended}: {cause}", final=True)
        self._journal.close(outcome, detail + notes)
        await workflow.wait_condition(workflow.all_handlers_finished)
        status = self._journal.status.model_dump(mode="json")
        raise ApplicationError(detail + notes, status, type=kind, non_retryable=True)

    async def _take_over(self) -> None:
        """After a reset: undo also what was done in the life that it cut off, and wake that life's guard."""
        for name, undo in (("lease", self._give_lease_back), ("publish", self._roll_back)):
            if not self._undo.knows(name):
                self._undo.register(name, undo)
        if self._keeping is None:
            await family.wake_former_guard(self._info.namespace)

    def _rolled_back(self, result: RollbackResult) -> str:
        restored = f"{result.version} was restored" if result.version else "the constitution was withdrawn"
        missing = f"; did not answer: {', '.join(result.unreachable)}" if result.unreachable else ""
        return f"rolled back, {restored} as generation {result.generation}{missing}: {self._cause}"

    async def _tell_rejection(self, info: DeploymentInfo, cause: str) -> None:
        subject = self._subject
        announcement = (
            self._announcement(subject, Outcome.REJECTED, cause)
            if subject
            else Announcement(
                key=f"{self._update_id}/rejected",
                update_id=self._update_id,
                environment=info.environment,
                outcome=Outcome.REJECTED.value,
                checksum=self._journal.status.checksum,
                change_request=self._journal.status.change_request,
                reason=cause,
                workflow_id=workflow.info().workflow_id,
                run_id=workflow.info().run_id,
                links=info.links,
                channel=info.channel,
            )
        )
        try:
            await self._stepper.run(
                "broadcast",
                Broadcast.announce,
                announcement,
                policies.SLACK,
                summary=f"tell {announcement.channel}: rejected",
                persistent=True,
                deadline=policies.AUDIT_DEADLINE,
            )
        except (StepFailedError, StepSkippedError) as error:
            self._journal.refused(f"not told: {error}")
        await self._audit_outcome(
            "broadcast",
            "update.rejected",
            success=False,
            message=cause,
            details=self._facts(None) | ({"denied_by": self._denial[0]} if self._denial else {}),
            deadline=policies.AUDIT_DEADLINE,
        )
        if self._denial is not None:
            status = self._journal.status
            await self._archive_denial(
                what="update", version=status.version, checksum=status.checksum, change_request=status.change_request
            )

    async def _roll_back(self) -> None:
        """Undo of publish, safe if it never happened or happens late: take the lease, only then look."""
        fenced = await self._fence()
        if fenced is None:
            return
        self._journal.step("publish", "undone", detail=f"generation {fenced} is undone by the rollback below")
        self._journal.set(rollback_workflow=Names(self._info.namespace).rollback_id(self._info.environment, fenced))
        self._rollback = await family.roll_back(
            fenced,
            RollbackRequest(
                reason=clipped(self._cause, 1000),
                bad_generation=fenced,
                update_id=self._update_id,
                watch_evidence=self._watch_evidence,
            ),
            self._info,
            self._journal,
        )
        self._journal.step("publish", "undone", detail=f"generation {fenced} was rolled back")

    async def _fence(self) -> int | None:
        fenced = await self._stepper.run(
            "publish",
            Restore.fence_and_look,
            FenceInput(
                environment=self._info.environment,
                update_id=self._update_id,
                workflow_id=workflow.info().workflow_id,
            ),
            policies.PROVE,
            summary="fence any late load with the lease, then look at what is live",
            persistent=True,
            manages_state=False,
        )
        self._fenced = fenced.fencing_token
        self._confirmed_late, self._undone = fenced.confirmed, fenced.undone
        return fenced.generation

    async def _give_lease_back(self) -> None:
        """Undo of lease, safe if it is granted late: fencing closes this update id for ever."""
        if self._rollback is not None or self._confirmed_late is not None:
            return  # the rollback has given the lease back; or the records give it back first
        if not self._fenced:
            await self._fence()
        await self._release_lease(self._fenced)

    async def _release_lease(self, token: int) -> None:
        await self._stepper.run(
            "lease",
            Publish.release_lease,
            ReleaseLeaseInput(
                environment=self._journal.status.environment or "",
                update_id=self._update_id,
                fencing_token=token,
            ),
            policies.WRITE,
            summary="give the lease back",
            persistent=True,
        )

    # telling

    @property
    def _update_id(self) -> str:
        return self._journal.status.update_id or ""

    def _announcement(self, subject: Subject, outcome: Outcome, reason: str) -> Announcement:
        published = self._published
        return Announcement(
            key=f"{self._update_id}/{outcome.value}",
            environment=subject.environment,
            outcome=outcome.value,
            version=subject.version,
            checksum=subject.checksum,
            generation=published.generation if published else self._confirmed_late,
            effective_at=published.effective_at if published else None,
            summary=subject.summary,
            reason=reason,
            approvers=self._journal.status.approvers,
            change_request=subject.change_request,
            workflow_id=subject.workflow_id,
            run_id=subject.run_id,
            links=subject.links,
            update_id=self._update_id,
            channel=subject.channel,
        )

    async def _progress(self, line: str, *, final: bool = False) -> None:
        """Edit the progress message; best effort: the outcome is what must be told. The final one is tried again."""
        if self._subject is None:
            return
        try:
            self._progress_at = await call(
                Broadcast.post_progress,
                ProgressInput(
                    subject=self._subject,
                    ts=self._progress_at.ts if self._progress_at else None,
                    channel_id=self._progress_at.channel_id if self._progress_at else None,
                    lines=(line,),
                ),
                policies.SLACK if final else policies.SLACK_ONCE,
                clipped(f"progress in {self._subject.channel}: {line}", SUMMARY),
            )
        except ActivityError as error:
            self._journal.refused(f"progress not told: {explain(error).message}")
