"""Compensation: registered before its step runs, undone last-in-first-out, a failure in one never stops the next.

The rules are those of Temporal's saga guidance (docs.temporal.io, saga pattern): each undo must be safe if the step
never happened, happened, or happens later. That last case is why the undo of ``publish`` begins by taking the lease.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from temporalio import workflow
from temporalio.exceptions import FailureError

Undo = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Compensations:
    """A stack of undos.

    Example:
        ``undo.register("lease", self._release)`` before the lease is asked for; ``await undo.unwind()`` on failure.
    """

    _stack: list[tuple[str, Undo]] = field(default_factory=list)

    def register(self, name: str, undo: Undo) -> None:
        """Remember how to undo ``name``; call it before the step starts."""
        self._stack.append((name, undo))

    def knows(self, name: str) -> bool:
        """Whether an undo of this name is registered."""
        return any(registered == name for registered, _ in self._stack)

    def forget(self) -> None:
        """Forget all: the point of no return has been passed."""
        self._stack.clear()

    async def unwind(self) -> list[tuple[str, FailureError]]:
        """Run every undo, newest first, each once; return the failures, named.

        Only failures of Temporal's own kind are collected; anything else is a defect of workflow code, and must
        fail the workflow task, loudly, rather than be counted as a failed undo.
        """
        failures: list[tuple[str, FailureError]] = []
        while self._stack:
            name, undo = self._stack.pop()
            try:
                await undo()
            except FailureError as error:
                workflow.logger.error("compensation_failed", extra={"compensation": name})
                failures.append((name, error))
        return failures
