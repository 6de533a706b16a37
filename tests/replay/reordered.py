"""The update with two of its steps in another order: what a careless change of the runbook would be."""

from temporalio import workflow
from temporalio.common import RawValue

from workflows import child_runs, policies
from workflows.input import NOTHING
from workflows.precondition_steps import PreconditionSteps
from workflows.update import ConstitutionUpdate

with workflow.unsafe.imports_passed_through():
    from activities.gate import Gate, GateInput, GateResult
    from activities.update_plan import UpdatePlan
    from constitution.messages import UpdateResult


class _GateFirst(PreconditionSteps):
    """Runs the regression gate before anybody's signature is verified."""

    async def prepare(self, update: UpdatePlan) -> GateResult:
        await self._stepper.run(
            "gate",
            Gate.run_regression_gate,
            GateInput(
                environment=update.environment,
                checksum=update.checksum,
                change_request=update.change_request,
                update_id=update.update_id,
            ),
            policies.gate(update.deadlines.gate),
            summary="run the regression gate on these very bytes",
        )
        return await super().prepare(update)


@workflow.defn(name=child_runs.UPDATE, failure_exception_types=[TypeError])
class GateBeforeSignatures(ConstitutionUpdate):
    """The update with that order."""

    def __init__(self) -> None:
        super().__init__()
        self._preconditions = _GateFirst(self._stepper, self._journal)

    @workflow.run
    async def run(self, raw: RawValue = NOTHING) -> UpdateResult:
        return await super().run(raw)
