"""The board's decisions on one run: who approved, who denied, and the wait for them.

An activity has verified each decision before, and that it counts; constitution-service verifies it again.
"""

from datetime import timedelta

from temporalio import workflow

from constitution.errors import NotApprovedError
from constitution.release import Envelope
from workflows.status import Journal, command
from workflows.stepping import Failure, StepFailedError, Stepper

with workflow.unsafe.imports_passed_through():
    from activities.preconditions import DecisionResult


class Board:
    """Counts decisions; a denial is final.

    Args:
        stepper: waits.
        journal: where the wait and the approvers become visible.
    """

    def __init__(self, stepper: Stepper, journal: Journal) -> None:
        self._stepper = stepper
        self._journal = journal
        self._approvals: dict[str, Envelope] = {}
        self.denied: str | None = None
        """Who denied, and why, in words."""
        self.denial: tuple[str, Envelope] | None = None
        """Who denied, and what they signed."""

    @property
    def approvers(self) -> tuple[str, ...]:
        """Return who approved, sorted."""
        return tuple(sorted(self._approvals))

    @property
    def envelopes(self) -> tuple[Envelope, ...]:
        """Return the approvals, in the order of ``approvers``."""
        return tuple(self._approvals[person] for person in self.approvers)

    def missing(self, needed: int) -> int:
        """Return how many more must approve."""
        return max(0, needed - len(self._approvals))

    def deny(self, answer: DecisionResult, envelope: Envelope) -> str:
        """Take a denial; return it in words."""
        self.denied = f"{answer.person} denied: {answer.reason}"
        self.denial = (answer.person, envelope)
        return self.denied

    def approve(self, answer: DecisionResult, envelope: Envelope) -> str:
        """Count an approval, each person's once; return the count in words."""
        self._approvals.setdefault(answer.person, envelope)
        self._journal.set(approvers=self.approvers)
        return f"approval of {answer.person} counted: {len(self._approvals)} of {answer.needed}"

    async def decide(self, needed: int, *, for_: str, deadline: timedelta | None) -> None:
        """Wait visibly until enough have approved.

        Raises:
            StepFailedError: one denied, or the deadline passed first.
            StepInterruptedError: abort or cancel.
        """
        in_time = await self._stepper.wait(
            "board",
            lambda: self.denied is not None or not self.missing(needed),
            for_=for_,
            next_command=command("approve"),
            deadline=deadline,
        )
        if self.denied is not None or not in_time:
            why = self.denied or f"the board's deadline passed with {len(self._approvals)} of {needed} approvals"
            raise StepFailedError("board", Failure(NotApprovedError.code, why, permanent=True))
        self._journal.step("board", "done", detail="approved by " + ", ".join(self.approvers))
