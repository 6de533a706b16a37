"""An operator's order to one rollback by hand: the one that came with its start, or one that is waited for."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from constitution.errors import ConflictError, ConstitutionError, NotApprovedError
from constitution.messages import RollbackRequest, SteerMessage
from workflows.bookkeeping import Bookkeeping
from workflows.status import Journal, command
from workflows.stepping import Failure, StepFailedError, Stepper, explain

with workflow.unsafe.imports_passed_through():
    from activities.deployment import DeploymentInfo
    from activities.orders import Ordered
    from activities.restore import RollbackPlan


class RollbackOrder:
    """See the module.

    Args:
        stepper: waits.
        journal: where the wait becomes visible.
        books: records and audits an order that does not count.
        accept: has constitution-service accept an order.
    """

    def __init__(
        self,
        stepper: Stepper,
        journal: Journal,
        books: Bookkeeping,
        accept: Callable[[str, SteerMessage], Awaitable[Ordered]],
    ) -> None:
        self._stepper = stepper
        self._journal = journal
        self._books = books
        self._accept = accept
        self._given: Ordered | None = None
        self._is_awaited = False

    async def obtain(self, request: RollbackRequest, plan: RollbackPlan, info: DeploymentInfo) -> Ordered:
        """Return the order that came with the start, or wait for one: visibly, and without the lease.

        Raises:
            StepFailedError: nobody gave one before the deadline.
            StepInterruptedError: abort or cancel.
        """
        self._is_awaited = True
        if request.order is not None or info.unsigned_steering:
            # One that does not count is refused, recorded and audited; a true one may still come.
            await self._of_the_start(SteerMessage(order=request.order, reason=request.reason))
        if self._given is None and not await self._stepper.wait(
            "request",
            lambda: self._given is not None,
            for_=f"an operator's signed order to undo generation {plan.bad_generation} "
            f"({', '.join(info.operators) or 'the trust policy names no operator'})",
            next_command=command("order rollback"),
            deadline=timedelta(seconds=plan.deadlines.person),
        ):
            why = f"no operator ordered it within {plan.deadlines.person} s"
            raise StepFailedError("request", Failure(NotApprovedError.code, why, permanent=True))
        if self._given is None:  # the wait ends by an order, by its deadline, or by raising
            raise AssertionError(plan.bad_generation)
        self._is_awaited = False
        self._journal.step("request", "done")
        return self._given

    async def take(self, message: SteerMessage) -> str:
        """Take an order that comes as a message; return in words who gave it.

        Raises:
            ConflictError: none is waited for.
        """
        self._require_awaited()
        given = await self._accept("rollback", message)
        self._require_awaited()  # the deadline may have passed meanwhile
        self._given = given
        return f"ordered by {given.by}"

    async def _of_the_start(self, message: SteerMessage) -> None:
        try:
            self._given = await self._accept("rollback", message)
        except ConstitutionError as error:
            await self._books.message_refused("rollback", error.code, error.diagnostics())
        except ActivityError as error:
            failure = explain(error)
            await self._books.message_refused("rollback", failure.code, failure.message)

    def _require_awaited(self) -> None:
        if not self._is_awaited or self._given is not None:
            raise ConflictError("no order is waited for", hint=command("status"))
