"""The messages of a run: decide, abort, retry, skip, promote, hold, resume; each as update and as signal.

Every message is read from its raw value, so that a malformed one is refused and recorded instead of being dropped
silently (a signal) or failing the workflow task (an update). A refused update fails with the reason; a refused
signal is recorded, audited and visible in ``status``. An identity is set by the client and proves nothing, so each
carries a signature: decide, skip and promote a board member's, the others an operator's. Stopping is always safe: an
abort, or a cancel, before anything is live needs none.
"""

import asyncio
import shlex
from typing import ClassVar, Literal, TypeVar

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError

from constitution.errors import ConflictError, ConstitutionError, NotApprovedError
from constitution.messages import (
    DecideMessage,
    Held,
    OrderMessage,
    ReasonedMessage,
    Status,
    SteerMessage,
    undo_command,
)
from constitution.release import Envelope
from constitution.trust.hold_rules import held_by, step_of_hold
from workflows import policies
from workflows.board import Board
from workflows.bookkeeping import Bookkeeping
from workflows.calling import call
from workflows.holds import Holds
from workflows.input import NOTHING, read
from workflows.release_steps import ReleaseSteps
from workflows.status import Journal, command
from workflows.stepping import Stepper, explain

with workflow.unsafe.imports_passed_through():
    from activities.deployment import DeploymentInfo
    from activities.orders import Ordered, Orders, SteerInput
    from activities.preconditions import OrderInput, OrderResult, Preconditions

ResultT = TypeVar("ResultT")

RECORDS = ("broadcast", "archive")
"""Steps after the point of no return: the only ones that may be skipped, by a signed order."""

STEER: dict[str, type[SteerMessage]] = {
    "abort": ReasonedMessage,
    "hold": ReasonedMessage,
    "resume": SteerMessage,
    "retry": SteerMessage,
}
"""What an operator says, and how it is read."""


class Steering:
    """Base of the workflows that people steer. Subclasses say what a decision means to them."""

    too_late: ClassVar[str] = "the release is confirmed"
    """Why a run that is past its point of no return cannot be stopped."""

    def __init__(self, name: str, steps: tuple[str, ...]) -> None:
        self._journal = Journal(name, steps)
        self._stop: str | None = None
        self._uninterruptible = False  # after confirmation, in an undo, and in a rollback that has begun
        self._info: DeploymentInfo | None = None  # until the run knows whom it serves, nothing unsigned is obeyed
        self._holds = Holds(self._journal)
        self._confirming = False
        self._stepper = Stepper(self._journal, self._interrupted)
        self._board = Board(self._stepper, self._journal)
        self._steps = ReleaseSteps(self._stepper, self._journal)
        self._books = Bookkeeping(self._stepper, self._journal)
        self._orders: dict[tuple[str, str | None], tuple[Envelope, ...]] = {}

    def _interrupted(self) -> str | None:
        return None if self._uninterruptible else self._stop

    async def _shielded(self, body: "asyncio.Task[ResultT]") -> ResultT:
        """Await the run's body; a cancel of the run becomes an abort, so there is one way to stop, not two.

        A run that is cancelled must still compensate. Temporal cancels the main task only, and once.
        """
        while True:
            try:
                return await asyncio.shield(body)
            except asyncio.CancelledError:
                reason = workflow.cancellation_reason()
                if body.done() or reason is None:  # None: the worker evicts this run from its cache
                    raise
                await self._cancelled(reason or "no reason given")

    async def _cancelled(self, reason: str) -> None:
        """A cancel is an abort that nobody can sign."""
        try:
            if self._uninterruptible:
                return
            if self._is_live:
                await self._accept("abort", SteerMessage(reason=reason))
            self._stop = self._stop or f"cancelled: {reason}"
        except ConstitutionError as error:
            await self._books.message_refused("cancel", error.code, error.diagnostics())
        except ActivityError as error:
            failure = explain(error)
            await self._books.message_refused("cancel", failure.code, failure.message)

    @property
    def _is_live(self) -> bool:
        """Whether stopping would undo what is live."""
        return self._journal.status.generation is not None

    @workflow.query(name="status", description="Where the run is, on whom it waits, and what to type next.")
    def status(self) -> Status:
        """Return the visible state of the run."""
        return self._journal.status

    @workflow.update(name="decide", description="A board member's signed approval or denial.")
    async def decide(self, raw: RawValue = NOTHING) -> str:
        """Count a signed decision; the answer says who has approved and how many are missing."""
        return await self._take("decide", raw)

    @workflow.signal(name="decide", description="A board member's signed approval or denial.")
    async def decide_signal(self, raw: RawValue = NOTHING) -> None:
        """Same, for clients that have no updates (tctl)."""
        await self._take_quietly("decide", raw)

    @workflow.update(name="abort", description="Stop, and undo what is live; then an operator's signed order.")
    async def abort(self, raw: RawValue = NOTHING) -> str:
        """Stop and undo; refused once the release is confirmed."""
        return await self._take("abort", raw)

    @workflow.signal(name="abort", description="Stop, and undo what is live; then an operator's signed order.")
    async def abort_signal(self, raw: RawValue = NOTHING) -> None:
        """Same, as a signal."""
        await self._take_quietly("abort", raw)

    @workflow.update(name="retry", description="Try the stuck step again; an operator's signed order.")
    async def retry(self, raw: RawValue = NOTHING) -> str:
        """Try the stuck step again now."""
        return await self._take("retry", raw)

    @workflow.signal(name="retry", description="Try the stuck step again; an operator's signed order.")
    async def retry_signal(self, raw: RawValue = NOTHING) -> None:
        """Same, as a signal."""
        await self._take_quietly("retry", raw)

    @workflow.update(name="skip", description="Go on without a stuck step of the records; a signed order.")
    async def skip(self, raw: RawValue = NOTHING) -> str:
        """Skip a stuck step of the records."""
        return await self._take("skip", raw)

    @workflow.signal(name="skip", description="Go on without a stuck step of the records; a signed order.")
    async def skip_signal(self, raw: RawValue = NOTHING) -> None:
        """Same, as a signal."""
        await self._take_quietly("skip", raw)

    @workflow.update(name="promote", description="Confirm before the watch ends; a signed order.")
    async def promote(self, raw: RawValue = NOTHING) -> str:
        """Confirm without waiting for the end of the watch or a hold."""
        return await self._take("promote", raw)

    @workflow.signal(name="promote", description="Confirm before the watch ends; a signed order.")
    async def promote_signal(self, raw: RawValue = NOTHING) -> None:
        """Same, as a signal."""
        await self._take_quietly("promote", raw)

    @workflow.update(name="hold", description="Do not confirm when the watch ends; an operator's signed order.")
    async def hold(self, raw: RawValue = NOTHING) -> str:
        """Hold the confirmation; the watch goes on meanwhile."""
        return await self._take("hold", raw)

    @workflow.signal(name="hold", description="Do not confirm when the watch ends; an operator's signed order.")
    async def hold_signal(self, raw: RawValue = NOTHING) -> None:
        """Same, as a signal."""
        await self._take_quietly("hold", raw)

    @workflow.update(name="resume", description="End a hold; an operator's signed order.")
    async def resume(self, raw: RawValue = NOTHING) -> str:
        """End a hold; an operator's signed order."""
        return await self._take("resume", raw)

    @workflow.signal(name="resume", description="End a hold; an operator's signed order.")
    async def resume_signal(self, raw: RawValue = NOTHING) -> None:
        """Same, as a signal."""
        await self._take_quietly("resume", raw)

    async def _take(self, verb: str, raw: RawValue) -> str:
        try:
            return await self._obey(verb, raw)
        except ConstitutionError as error:
            await self._books.message_refused(verb, error.code, error.diagnostics())
            raise ApplicationError(error.diagnostics(), type=error.code, non_retryable=True) from error
        except ActivityError as error:
            failure = explain(error)
            await self._books.message_refused(verb, failure.code, failure.message)
            raise ApplicationError(failure.message, type=failure.code, non_retryable=True) from error

    async def _take_quietly(self, verb: str, raw: RawValue) -> None:
        try:
            await self._take(verb, raw)
        except ApplicationError:
            # Recorded and audited by _take. A signal has nobody to answer, and must not fail the run.
            return

    async def _obey(self, verb: str, raw: RawValue) -> str:
        hint = "the input is one JSON object; `constitution` makes and signs it: `approve` and `deny` for decide"
        if self._journal.status.outcome is not None:
            raise ConflictError(f"{verb} comes too late: the run has ended")
        match verb:
            case "decide":
                return await self._on_decide(read(DecideMessage, raw, hint=hint))
            case "skip":
                return await self._on_skip(read(OrderMessage, raw, hint=hint))
            case "promote":
                return await self._on_promote(read(OrderMessage, raw, hint=hint))
            case _:
                return await self._steer(verb, read(STEER[verb], raw, hint=hint))

    # an operator's orders

    async def _steer(self, verb: str, message: SteerMessage) -> str:
        self._require_fit(verb)
        if verb == "abort" and message.order is None and not self._is_live:  # stopping is always safe
            self._stop = self._stop or f"aborted: {message.reason or verb}"
            return "stopping"
        answers = self._step_of(verb)
        said = await self._accept(verb, message)
        self._require_fit(verb)  # the run has gone on meanwhile
        match verb:
            case "abort":
                by = f" by {said.person}" if said.person else ""
                self._stop = self._stop or f"aborted{by}: {said.reason}"
                return "stopping"
            case "hold":
                self._holds.add(Held(name=step_of_hold(said.digest), why=held_by(said.person, said.reason)))
                return "held: it will not be confirmed before resume or promote"
            case "resume":
                self._holds.resume(answers or "", f"{said.by}: {said.reason}")
                still = self._holds.first
                return "going on" if still is None else f"that hold is ended; another stands: {still.why}"
            case _:
                self._stepper.retry()
                return "trying again"

    async def _accept(self, verb: str, message: SteerMessage) -> Ordered:
        """Have constitution-service accept an order, or refuse what nobody signed with the command that signs it."""
        status, info = self._journal.status, self._info
        if status.environment is None or status.update_id is None or info is None:
            raise ConflictError("the run does not know yet what it is about", hint=command("status"))
        if message.order is None and not info.unsigned_steering:
            raise NotApprovedError(
                f"an unsigned {verb} is not obeyed: it takes the signed order of an operator "
                f"({', '.join(info.operators) or 'the trust policy names none'})",
                hint=f"constitution order {verb} {shlex.quote(workflow.info().workflow_id)} --print"
                "  # signs it with your key: what it prints is the input",
            )
        return await call(
            Orders.accept_order,
            SteerInput(
                environment=status.environment,
                update_id=status.update_id,
                order=verb,
                step=self._step_of(verb),
                envelope=message.order,
                reason=message.reason,
            ),
            policies.READ,
            f"check the order to {verb}",
        )

    def _step_of(self, verb: str) -> str | None:
        """Return what an order must name: the step to try again, or the hold to end; none that comes later."""
        if verb == "resume":
            held = self._holds.first
            return None if held is None else held.name
        return self._journal.status.step if verb == "retry" else None

    def _require_fit(self, verb: str) -> None:
        """Refuse what the run cannot do now.

        Raises:
            ConflictError: with what to type instead.
        """
        if verb == "abort" and self._uninterruptible:
            raise ConflictError(f"{self.too_late}: there is nothing to abort", hint=self._instead_of_abort())
        if verb == "hold":
            self._require_holdable()
        if verb == "resume" and self._holds.first is None:
            raise ConflictError("nothing is held: there is nothing to resume", hint=command("status"))

    def _require_holdable(self) -> None:
        if self._uninterruptible:
            raise ConflictError("the release is confirmed: there is nothing to hold")
        if self._confirming:
            raise ConflictError("too late: the release is being confirmed", hint=command("status"))

    async def _on_decide(self, message: DecideMessage) -> str:  # noqa: ARG002 - what runs without a board do with it
        raise ConflictError("this run takes no decisions", hint=command("status"))

    def _instead_of_abort(self) -> str:
        """Return what to type when it is too late: an undo only of the release that this run itself has confirmed."""
        status = self._journal.status
        confirmed = any(step.name == "confirm" and step.state == "done" for step in status.steps)
        if confirmed and status.generation and status.workflow == "ConstitutionUpdate":
            return undo_command(status.generation)
        return command("watch")

    # the board's orders

    async def _on_skip(self, message: OrderMessage) -> str:
        step = self._journal.status.step
        if not self._uninterruptible or step not in RECORDS:
            raise ConflictError(f"only {' and '.join(RECORDS)} can be skipped, while they are stuck after confirmation")
        said = await self._order("skip", step, message.order)
        if not said.satisfied:
            return _counted(said)
        by = ", ".join(said.orderers)
        self._stepper.skip(step, by)
        return f"{step} is skipped by order of {by}"

    async def _on_promote(self, message: OrderMessage) -> str:
        if self._uninterruptible:
            raise ConflictError("the release is confirmed already")
        if self._journal.status.generation is None:  # who signs next must not put an unwatched release live unawares
            raise ConflictError(
                "nothing is published yet: a promote is given when the watch has begun", hint=command("status")
            )
        said = await self._order("promote", None, message.order)
        if not said.satisfied:
            return _counted(said)
        if self._holds.promoted is None:  # an order that comes while it is confirmed changes no record's words
            self._holds.promoted = ", ".join(said.orderers)
        return f"promoted by order of {self._holds.promoted}"

    async def _order(self, order: Literal["skip", "promote"], step: str | None, envelope: Envelope) -> OrderResult:
        """Verify a signed order and count it with those that were given before for the same step."""
        status = self._journal.status
        if status.environment is None or status.update_id is None:
            raise ConflictError("the run does not know yet what it is about", hint=command("status"))
        seen = self._orders.get((order, step), ())
        said: OrderResult = await call(
            Preconditions.check_order,
            OrderInput(
                environment=status.environment,
                workflow_id=workflow.info().workflow_id,
                update_id=status.update_id,
                order=order,
                step=step,
                envelope=envelope,
                seen=seen,
            ),
            policies.READ,
            f"check the signed order to {order}",
        )
        counted = self._orders.get((order, step), ())
        if envelope not in counted:  # who reads the history can send it again and again
            self._orders[order, step] = (*counted, envelope)
        return said


def _counted(said: OrderResult) -> str:
    return f"order of {said.person} counted: {len(said.orderers)} of {said.needed}"
