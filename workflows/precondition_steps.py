"""Steps before anything is leased: what is asked for, who signed it, and what the gate and the engines say of it."""

from datetime import timedelta

from temporalio import workflow

from constitution.messages import UpdateRequest
from workflows import policies
from workflows.status import Journal, command
from workflows.stepping import Stepper

with workflow.unsafe.imports_passed_through():
    from activities.expected_change import ExpectedChange, PredictInput
    from activities.gate import Gate, GateInput, GateResult
    from activities.preconditions import Preconditions, ResolveInput
    from activities.update_plan import UpdatePlan

LONGEST_PREDICTED = 300  # characters of one of its lines
MOST_PREDICTED = 12  # lines of the expected change in status and details; the evidence holds all


class PreconditionSteps:
    """Steps of one update that change nothing.

    Args:
        stepper: runs them.
        journal: where they become visible.
    """

    def __init__(self, stepper: Stepper, journal: Journal) -> None:
        self._stepper = stepper
        self._journal = journal

    async def resolve(self, request: UpdateRequest) -> UpdatePlan:
        """Find out what the request is about, and every problem with it."""
        info = workflow.info()
        update = await self._stepper.run(
            "request",
            Preconditions.resolve_update,
            ResolveInput(
                request=request,
                update_id=self._journal.status.update_id or "",
                workflow_id=info.workflow_id,
                run_id=info.run_id,
            ),
            policies.READ,
            summary=f"what {request.change_request} asks for, and every problem with it",
        )
        self._stepper.person_deadline = timedelta(seconds=update.deadlines.person)
        self._journal.set(
            checksum=update.checksum,
            version=update.version,
            previous=update.previous.checksum if update.previous else None,
            strategy="a first release has no baseline: not watched"
            if update.first
            else f"{update.strategy_name}: {update.strategy.words()}",
            plan=update.plan,
        )
        self._journal.identify()
        return update

    async def prepare(self, update: UpdatePlan) -> GateResult:
        """Check the signatures, run the gate, and predict the change; return the evidence that the board signs."""
        signatures = await self._stepper.run(
            "signatures",
            Preconditions.verify_signatures,
            update,
            policies.READ,
            summary="verify the maintainers' signatures",
        )
        self._journal.step("signatures", "done", detail="signed by " + ", ".join(signatures.signers))
        gate = await self._stepper.run(
            "gate",
            Gate.run_regression_gate,
            GateInput(
                environment=update.environment,
                checksum=update.checksum,
                change_request=update.change_request,
                update_id=update.update_id,
                document=update.document,
            ),
            policies.gate(update.deadlines.gate),
            summary="run the regression gate on these very bytes",
        )
        predicted = await self._stepper.run(
            "gate",
            ExpectedChange.predict_shift,
            PredictInput(environment=update.environment, evidence=gate.evidence),
            policies.READ,
            summary="replay recorded requests through the candidate: the expected change",
            manages_state=False,
        )
        gate = gate.model_copy(update={"evidence": predicted.evidence})
        self._journal.step("gate", "done", detail="; ".join((*gate.suites, predicted.lines[0])))
        shown = tuple(line[:LONGEST_PREDICTED] for line in predicted.lines[:MOST_PREDICTED])
        self._journal.set(evidence=gate.evidence, predicted=shown)
        return gate

    async def wait_until_effective(self, update: UpdatePlan) -> None:
        """Wait for the moment that the document and the board name.

        Raises:
            StepInterruptedError: abort or cancel.
        """
        moments = [moment for moment in (update.effective_at, update.not_before) if moment is not None]
        if moments and max(moments) > workflow.now():
            await self._stepper.wait(
                "lease",
                lambda: False,
                for_=f"{max(moments).isoformat(timespec='seconds')}, when the release may take effect",
                next_command=command("abort", "--reason", "'stopped by hand'"),
                deadline=max(moments) - workflow.now(),
            )
