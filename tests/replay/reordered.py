"""The update with two of its steps in another order: what a careless change of the runbook would be."""

from temporalio import workflow
from temporalio.common import RawValue

from workflows import family, policies
from workflows.reading import NOTHING
from workflows.update import ConstitutionUpdate

with workflow.unsafe.imports_passed_through():
    from activities.preconditions import GateResult, Preconditions
    from activities.subject import Subject
    from constitution.messages import UpdateResult


@workflow.defn(name=family.UPDATE, failure_exception_types=[TypeError])
class GateBeforeSignatures(ConstitutionUpdate):
    """Runs the regression gate before anybody's signature is verified."""

    @workflow.run
    async def run(self, raw: RawValue = NOTHING) -> UpdateResult:
        return await super().run(raw)

    async def _prepare(self, subject: Subject) -> GateResult:
        await self._stepper.run(
            "gate",
            Preconditions.run_regression_gate,
            subject,
            policies.gate(subject.deadlines.gate),
            summary="run the regression gate on these very bytes",
        )
        return await super()._prepare(subject)
