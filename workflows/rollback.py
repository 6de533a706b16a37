"""ConstitutionRollback: the publish sequence again, with the restored artifact.

It ends when every answering target obeys. By hand or as the child of an update or a guard. Its first act on the world
is to take the lease, which fences any late load of the update that it undoes; only then does it read what is current.
From then on nothing interrupts it: a failed step is tried again, visibly, and a permanent refusal calls for a person.
Rules: docs/architecture.md, Workflows.
"""

import asyncio
from datetime import timedelta
from typing import ClassVar, NoReturn

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from constitution.errors import (
    ConflictError,
    EvidenceError,
    ForbiddenError,
    InvalidRequestError,
    LeaseHeldError,
    LeaseLostError,
    NotApprovedError,
    NotCurrentError,
    StaleGenerationError,
)
from constitution.messages import (
    DecideMessage,
    OrderMessage,
    Outcome,
    Phase,
    RollbackRequest,
    RollbackResult,
    SteerMessage,
)
from constitution.release import Kind, Standing
from constitution.rollback_plan import step_of
from workflows import child_runs, policies
from workflows.calling import call
from workflows.input import NOTHING, read
from workflows.rollback_order import RollbackOrder
from workflows.status import clipped, command
from workflows.steering import Steering
from workflows.stepping import Failure, StepFailedError, StepInterruptedError

with workflow.unsafe.imports_passed_through():
    from activities.archive import Archived, ArchiveInput
    from activities.broadcast import Announcement, Posted
    from activities.confirm import Confirm, StandingInput
    from activities.deployment import DeploymentInfo
    from activities.preconditions import DecisionResult, Preconditions, RollbackDecisionInput
    from activities.publish import LeaseInput, Proof, Publish, Published
    from activities.restore import PlanInput, Restore, RestoreInput, RollbackPlan
    from activities.sync import SyncReport

STEPS = ("request", "board", "lease", "publish", "sync", "confirm", "broadcast", "archive")
REFUSED_LEASES = frozenset({LeaseHeldError.code, ForbiddenError.code, NotApprovedError.code, NotCurrentError.code})
NOTHING_TO_UNDO = Failure(InvalidRequestError.code, "this update published nothing: nothing to undo", permanent=True)
NONE: frozenset[str] = frozenset()
HINT = 'the input is one JSON object: {"reason": "why it is undone"}, or with "to": 7, the generation to restore'


@workflow.defn(name=child_runs.ROLLBACK, failure_exception_types=[TypeError])
class ConstitutionRollback(Steering):
    """Restores the newest confirmed artifact, or one that was asked for, as a new generation.

    Input: one JSON object, ``constitution.messages.RollbackRequest``. Completes with :class:`RollbackResult`; fails
    with type ``Rejected`` only while nothing was changed. A run that finds its work done already proves it and
    completes with the same generation, so a second start is safe at any time.
    """

    too_late: ClassVar[str] = "the rollback has begun"

    def __init__(self) -> None:
        super().__init__(child_runs.ROLLBACK, STEPS)
        self._stepper.persistent_phase = Phase.ROLLING_BACK
        self._plan: RollbackPlan | None = None
        self._token = 0
        self._by_hand = False
        self._rollback_order = RollbackOrder(self._stepper, self._journal, self._books, self._accept)

    @workflow.update(name="rollback", description="An operator's signed order to begin a rollback that waits for one.")
    async def rollback(self, raw: RawValue = NOTHING) -> str:
        """Begin, by an operator's order."""
        return await self._take("rollback", raw)

    @workflow.signal(name="rollback", description="An operator's signed order to begin a rollback that waits for one.")
    async def rollback_signal(self, raw: RawValue = NOTHING) -> None:
        """Same, as a signal."""
        await self._take_quietly("rollback", raw)

    @workflow.run
    async def run(self, raw: RawValue = NOTHING) -> RollbackResult:
        """Run the rollback."""
        return await self._shielded(asyncio.create_task(self._run(raw), name="rollback"))

    async def _run(self, raw: RawValue) -> RollbackResult:
        self._info = info = await child_runs.deployment(self._journal)
        try:
            request = read(RollbackRequest, raw, hint=HINT)
            # The starter of a run can write any update id; only a child of ours may act for its parent.
            self._by_hand = request.update_id is None or not await child_runs.is_child_of_ours(info)
            self._journal.set(update_id=request.update_id or str(workflow.uuid4()))
            self._journal.identify()
            if self._by_hand:
                request = await self._ask(request, info)
            else:
                self._uninterruptible = True
            await self._steps.guard(info, archives_histories=self._by_hand)
            plan, published = await self._restore(request, info)
        except InvalidRequestError as error:
            await self._reject(Failure(error.code, error.diagnostics(), permanent=True), info)
        except StepFailedError as error:
            await self._reject(error.failure, info)
        except StepInterruptedError as error:
            await self._reject(Failure("interrupted", error.reason, permanent=True), info)
        if plan.done:
            return await self._finish(plan, published, None, None, request)
        proof = await self._steps.prove(published, plan.rings, persistent=True)
        await self._stand(plan, plan.bad_generation or 0, plan.standing_for_bad, request)
        report = await self._sync(plan, published.generation)
        await self._stand(plan, published.generation, Standing.CONFIRMED, request)
        return await self._finish(plan, published, proof, report, request)

    # before anything is changed: a rollback by hand may be refused, denied or aborted

    async def _ask(self, request: RollbackRequest, info: DeploymentInfo) -> RollbackRequest:
        """Return the request with the release named that was live when it was asked for: the board may take days."""
        plan = await self._look(request, info, persistent=False)
        if plan.bad_generation is None:
            raise StepFailedError("request", NOTHING_TO_UNDO)
        await self._quorum(plan, timedelta(seconds=plan.deadlines.decisions))
        if plan.needs_order:
            given = await self._rollback_order.obtain(request, plan, info)
            by = f"ordered by {given.by}: {given.reason}"
            request = request.model_copy(update={"reason": clipped(by, 1000)})
        return request.model_copy(update={"bad_generation": plan.bad_generation})

    async def _obey(self, verb: str, raw: RawValue) -> str:
        if verb == "rollback":
            return await self._rollback_order.take(read(SteerMessage, raw, hint=command("order rollback")))
        return await super()._obey(verb, raw)

    def _step_of(self, verb: str) -> str | None:
        undoes = self._journal.status.undoes
        if verb == "rollback" and undoes is not None:
            return step_of(undoes)
        return super()._step_of(verb)

    async def _quorum(self, plan: RollbackPlan, deadline: timedelta | None) -> None:
        """Wait for the board, where the approvals of the bad release do not authorise its undo any more."""
        if not plan.needs_quorum:
            self._journal.step("board", "done", detail="authorised in advance by the approvals of the bad release")
            return
        await self._board.decide(plan.quorum, for_=f"{plan.quorum} board members: {plan.why_quorum}", deadline=deadline)

    async def _on_decide(self, message: DecideMessage) -> str:
        if self._plan is None or not self._plan.needs_quorum or self._journal.status.generation is not None:
            raise ConflictError("the board is not asked now", hint=command("status"))
        answer: DecisionResult = await call(
            Preconditions.check_rollback_decision,
            RollbackDecisionInput(plan=self._plan, envelope=message.approval, seen=self._board.envelopes),
            policies.READ,
            "verify a board member's decision",
        )
        if answer.decision == "deny":
            self._board.deny(answer, message.approval)
            return "denied: the rollback is rejected"
        return self._board.approve(answer, message.approval)

    def _require_holdable(self) -> None:
        raise ConflictError("a rollback is not watched: there is nothing to hold")

    async def _on_promote(self, message: OrderMessage) -> str:  # noqa: ARG002 - the verb's signature
        raise ConflictError("a rollback is not watched: there is nothing to promote")

    async def _look(
        self, request: RollbackRequest, info: DeploymentInfo, *, persistent: bool, raises: frozenset[str] = frozenset()
    ) -> RollbackPlan:
        plan = await self._stepper.run(
            "request",
            Restore.plan_rollback,
            PlanInput(environment=info.environment, update_id=self._update_id, request=request),
            policies.READ,
            summary="what is live, and what was confirmed before it",
            persistent=persistent,
            raises=raises,
        )
        self._plan = plan
        self._journal.set(
            version=plan.version, checksum=plan.checksum, previous=plan.bad_checksum, undoes=plan.bad_generation
        )
        restored = f"{plan.version} of generation {plan.restore_generation}" if plan.version else "no constitution"
        self._journal.step("request", "done", detail=f"undo generation {plan.bad_generation}: restore {restored}")
        self._journal.identify()
        return plan

    # the restoring: lease first, then look, then load

    async def _restore(self, request: RollbackRequest, info: DeploymentInfo) -> tuple[RollbackPlan, Published]:
        self._stepper.check()
        self._uninterruptible = True  # before the lease is asked for: one that was granted unseen would block everybody
        try:
            return await self._undo(request, info)
        except StepFailedError as error:
            if error.failure.code not in {NotCurrentError.code, NotApprovedError.code}:
                raise
            # Replaced, and another update holds the lease by now; or reset, and the order has expired. An undo that
            # was loaded before goes on; one that was finished needs no lease.
            plan = await self._look(request, info, persistent=True, raises=self._refusals)
            if plan.already is None:
                raise
            if not plan.done:
                return await self._undo(request, info)
            return plan, await self._load(plan, request.reason)

    async def _undo(self, request: RollbackRequest, info: DeploymentInfo) -> tuple[RollbackPlan, Published]:
        leased = False
        while True:
            if not leased:
                await self._take_lease(undoes=request.bad_generation, raises=REFUSED_LEASES if self._by_hand else NONE)
                leased = True
            try:
                plan = await self._look(
                    request, info, persistent=True, raises=self._refusals if self._by_hand else NONE
                )
                if plan.needs_quorum and not self._by_hand and self._board.missing(plan.quorum):
                    leased = False
                    await self._ask_without_lease(plan)
                    continue
                published = await self._load(plan, request.reason)
            except StepFailedError as error:
                if error.failure.code == LeaseLostError.code:
                    # Somebody pre-empted us, or an operator reset this run to a point whose lease was given back.
                    leased = False
                elif error.failure.code != StaleGenerationError.code:
                    await self._steps.release_lease(self._token)
                    raise
                workflow.logger.info("looking_again_before_restoring")
            else:
                self._journal.set(generation=published.generation)
                self._journal.identify()
                return plan, published

    async def _ask_without_lease(self, plan: RollbackPlan) -> None:
        """Wait for the board as one who may be stopped: no lease is held while a person is waited for."""
        await self._steps.release_lease(self._token)
        self._uninterruptible = False
        await self._quorum(plan, timedelta(seconds=plan.deadlines.decisions))
        self._stepper.check()
        self._uninterruptible = True

    async def _load(self, plan: RollbackPlan, reason: str) -> Published:
        me = workflow.info()
        return await self._stepper.run(
            "publish",
            Restore.load_restored,
            RestoreInput(
                plan=plan,
                envelopes=self._board.envelopes,
                fencing_token=self._token,
                reason=reason,
                workflow_id=me.workflow_id,
                run_id=me.run_id,
            ),
            policies.WRITE,
            summary=f"restore {plan.version or 'no constitution'}: POST /v1/constitution/load",
            persistent=True,
            manages_state=False,
            raises=self._refusals,
        )

    async def _take_lease(self, *, undoes: int | None, raises: frozenset[str]) -> None:
        lease = await self._stepper.run(
            "lease",
            Publish.acquire_lease,
            LeaseInput(
                environment=self._journal.status.environment or "",
                update_id=self._update_id,
                kind=Kind.ROLLBACK,
                workflow_id=workflow.info().workflow_id,
                # Only a person pre-empts somebody else's update, and only while what they undo is live. Where one
                # holds the lease, nothing of ours can be live any more, or theirs will be refused; we wait our turn.
                # Whoever waits for nothing but records needs no order, and takes the lease from nobody.
                own_only=not self._by_hand or undoes is None or self._is_undone,
                undoes=undoes if self._by_hand else None,
                approvals=self._board.envelopes,
                lost=self._token or None,
            ),
            policies.WRITE,
            summary="take the lease: from now on a late load of the update is refused",
            persistent=True,
            raises=raises,
        )
        self._token = lease.fencing_token

    @property
    def _is_undone(self) -> bool:
        return self._plan is not None and self._plan.already is not None

    @property
    def _refusals(self) -> frozenset[str]:
        """Which refusals end a step: by hand any that a person can resolve by starting anew."""
        by_person = {NotApprovedError.code, "invalid-document", "not-found", "untrusted"}
        again = {StaleGenerationError.code, LeaseLostError.code}
        return frozenset(again | {InvalidRequestError.code} | (by_person if self._by_hand else set()))

    async def _sync(self, plan: RollbackPlan, generation: int) -> SyncReport:
        report = await self._steps.sync(
            generation,
            seconds=plan.deadlines.sync,
            summary="every answering target is back on the restored policy hash",
            undoes=True,
        )
        missing = f"; no answer from {report.silent()}" if report.unreachable else ""
        self._journal.step("sync", "done", detail=f"obeyed by {report.obeyed_by()}{missing}")
        return report

    async def _stand(self, plan: RollbackPlan, generation: int, standing: Standing, request: RollbackRequest) -> None:
        """Record the standing of a release; a lease that was lost since the load is taken anew.

        A release that was replaced meanwhile cannot be confirmed any more: the run says so, and goes on to its records.
        """
        confirms = standing is Standing.CONFIRMED
        pause = policies.PERSISTENT_PAUSE
        while True:
            try:
                await self._stepper.run(
                    "confirm",
                    Confirm.record_standing,
                    StandingInput(
                        environment=plan.environment,
                        generation=generation,
                        standing=standing,
                        reason="every answering target obeys" if confirms else request.reason,
                        update_id=self._update_id,
                        fencing_token=self._token,
                    ),
                    policies.CONFIRM,
                    summary=f"generation {generation} is {standing.value}, or worse if evidence says so",
                    persistent=True,
                    raises=frozenset({LeaseLostError.code, NotCurrentError.code})
                    | (frozenset({EvidenceError.code}) if confirms else NONE),
                )
            except StepFailedError as error:
                if error.failure.code == NotCurrentError.code:
                    return self._journal.refused(f"generation {generation} is not confirmed: {error.failure.message}")
                if error.failure.code == EvidenceError.code:  # a sync's report was made up, or its attestation is none
                    await self._stepper.pause("confirm", error.failure, pause)
                    pause = min(pause * 2, policies.PERSISTENT_PAUSE_MAX)
                    await self._sync(plan, generation)
                    continue
            else:
                return None
            await self._take_lease(undoes=None, raises=NONE)

    # records

    async def _finish(
        self,
        plan: RollbackPlan,
        published: Published,
        proof: Proof | None,
        report: SyncReport | None,
        request: RollbackRequest,
    ) -> RollbackResult:
        """Give the lease back, announce and archive; each happens once, however often a run comes here."""
        await self._steps.release_lease(self._token)
        self._stepper.persistent_phase = Phase.RECORDS_PENDING
        unreachable = report.unreachable if report else ()
        more_unreachable = report.more_unreachable if report else 0
        posted = await self._broadcast(plan, unreachable, more_unreachable)
        archived = await self._archive(plan, published, proof, request)
        restored = f"{published.version} was restored" if published.version else "the constitution was withdrawn"
        detail = f"generation {plan.bad_generation} undone: {restored} as generation {published.generation}"
        await self._books.audit_outcome(
            "archive",
            "rollback.completed",
            success=True,
            event_id=f"{plan.environment}/{plan.bad_generation}/rolled_back",  # once, also by a run started again
            message=f"{detail}: {request.reason}",
            details={
                "bad_generation": plan.bad_generation,
                "bad_version": plan.bad_version,
                "generation": published.generation,
                "version": published.version,
                "checksum": published.checksum,
                "change_request": plan.change_request,
                "approvers": list(self._authorised_by(plan)),
                "reason": request.reason,
            },
        )
        self._journal.close(Outcome.ROLLED_BACK, detail)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return RollbackResult(
            outcome=Outcome.ROLLED_BACK,
            environment=plan.environment,
            update_id=self._update_id,
            bad_generation=plan.bad_generation,
            generation=published.generation,
            version=published.version,
            checksum=published.checksum,
            effective_at=published.effective_at,
            reason=request.reason,
            unreachable=unreachable,
            more_unreachable=more_unreachable,
            slack_permalink=posted.permalink if posted else "",
            archive_commit=archived.commit if archived else "",
        )

    def _authorised_by(self, plan: RollbackPlan) -> tuple[str, ...]:
        """Return who authorised the undo: the board members asked, or those who did in advance, with the release."""
        return self._board.approvers or plan.approvers

    async def _broadcast(
        self, plan: RollbackPlan, unreachable: tuple[str, ...], more_unreachable: int
    ) -> Posted | None:
        me = workflow.info()
        announcement = Announcement(
            key=f"{plan.environment}/{plan.bad_generation}/rolled_back",
            environment=plan.environment,
            outcome=Outcome.ROLLED_BACK,
            generation=plan.bad_generation,
            workflow_id=me.workflow_id,
            run_id=me.run_id,
            update_id=self._update_id,
            answers=plan.bad_update_id,
            unreachable=unreachable,
            more_unreachable=more_unreachable,
        )
        return await self._books.announce(announcement, f"announce in {plan.channel}: rolled back")

    async def _archive(
        self, plan: RollbackPlan, published: Published, proof: Proof | None, request: RollbackRequest
    ) -> Archived | None:
        seen = request.watch_evidence if workflow.info().parent is not None else None
        made = "withdrawn" if plan.kind is Kind.WITHDRAW else "restored"
        inputs = [
            (
                ArchiveInput(
                    environment=plan.environment,
                    generation=generation,
                    outcome=outcome,
                    watch_evidence=seen if outcome == "rolled_back" else None,
                ),
                f"generation {generation} ({outcome}) into the legal archive",
            )
            for generation, outcome in ((plan.bad_generation, "rolled_back"), (published.generation, made))
            if generation is not None
        ]
        return await self._books.archive(proof, *inputs)

    async def _reject(self, failure: Failure, info: DeploymentInfo) -> NoReturn:
        """End as Rejected: nothing was changed; the refusal is announced and audited."""
        self._uninterruptible = True
        self._journal.step(self._journal.status.step or "request", "failed", error=failure.message)
        me = workflow.info()
        detail = f"rejected, nothing was changed: {failure.message}"
        announcement = Announcement(
            key=f"{me.run_id}/rejected",
            environment=info.environment,
            outcome=Outcome.REJECTED,
            reason=f"rollback refused: {failure.message}",
            update_id=self._update_id,
            workflow_id=me.workflow_id,
            run_id=me.run_id,
        )
        await self._books.refused(
            announcement,
            self._board,
            what="rollback",
            summary=f"announce in {info.channel}: rollback refused",
            message=failure.message,
            details={"code": failure.code},
            version=self._plan.bad_version if self._plan else None,
            checksum=self._plan.bad_checksum if self._plan else None,
            change_request=self._plan.change_request if self._plan else None,
        )
        self._journal.close(Outcome.REJECTED, detail)
        await workflow.wait_condition(workflow.all_handlers_finished)
        raise ApplicationError(
            detail, self._journal.status.model_dump(mode="json"), type="Rejected", non_retryable=True
        )

    @property
    def _update_id(self) -> str:
        return self._journal.status.update_id or workflow.info().run_id
