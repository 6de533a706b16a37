"""Signed orders to a run: an operator's (abort, hold, resume, retry, rollback), a board member's (skip, promote)."""

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from constitution.checksum import checksum_of
from constitution.errors import ConflictError, NotApprovedError, NotYetError, UntrustedError
from constitution.messages import OrderMessage, ReasonedMessage, Status, SteerMessage
from constitution.model import Model
from constitution.release import Envelope
from constitution.rollback_plan import step_of
from constitution.trust.approval import BOARD_ORDERS, OrderPredicate
from constitution.trust.approval_rules import time_refusal
from constitution.trust.trust_policy import TrustPolicy
from constitution_client.connections import run_named, trust_policy
from constitution_client.output import progress, result
from constitution_client.prompting import confirm
from constitution_client.settings import ClientSettings, UsageError, settings
from constitution_client.signing import Signing, SigningOptions
from constitution_client.temporal import Runs
from signatures.statements import IN_TOTO, order_bytes, verify_order

ORDER_VALID = timedelta(hours=1)  # an order is about now; a stale one must not act on a later stuck step


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs an order, with a key file here or elsewhere, and the trust policy that knows them."""

    signing: Signing
    policy: TrustPolicy

    @classmethod
    def read(cls, verb: str, options: SigningOptions, configured: ClientSettings, trust: Path | None) -> "Signer":
        """Read a key file, or a signature with the statement that it signs.

        Raises:
            UntrustedError: it is of nobody who may give this order.
        """
        policy = trust_policy(configured, trust)
        return cls(Signing.begin(options, policy, "board" if verb in BOARD_ORDERS else "operator"), policy)

    @property
    def name(self) -> str:
        """Who signs, in words."""
        return self.signing.name

    def predicate(
        self, verb: str, *, workflow_id: str, update_id: str, step: str | None, reason: str | None
    ) -> OrderPredicate:
        """Return the order to sign; of one that was signed elsewhere, reason and times are what it says.

        Raises:
            NotApprovedError: it has expired.
            UntrustedError: it says something else.
        """
        now = datetime.now(UTC)
        stated = self.signing.stated(lambda envelope: verify_order(envelope, self.policy, now))
        issued_at, expires_at = (now, now + ORDER_VALID) if stated is None else (stated.issued_at, stated.expires_at)
        if (late := time_refusal(issued_at, expires_at, now)) is not None:
            raise NotApprovedError(f"the signed statement {late}", hint="write a new one with --print-statement")
        if reason is None:
            reason = f"{verb} by hand" if stated is None else stated.reason
        predicate = OrderPredicate(
            environment=self.policy.environment,
            workflow_id=workflow_id,
            update_id=update_id,
            order=verb,
            step=step,
            reason=reason,
            issued_at=issued_at,
            expires_at=expires_at,
        )
        self.signing.check(order_bytes(predicate), IN_TOTO)
        return predicate

    def envelope(self, predicate: OrderPredicate, json: bool | None) -> Envelope | None:
        """Sign an order; None where its statement was written down, to be signed elsewhere."""
        facts = {"workflow_id": predicate.workflow_id, "order": predicate.order, "step": predicate.step}
        return self.signing.envelope(order_bytes(predicate), IN_TOTO, json, **facts)

    def order(self, verb: str, *, workflow_id: str, update_id: str, step: str | None, reason: str) -> Envelope:
        """Sign an order with a key file."""
        predicate = self.predicate(verb, workflow_id=workflow_id, update_id=update_id, step=step, reason=reason)
        envelope = self.envelope(predicate, None)
        if envelope is None:
            raise UsageError("this command takes a key file")
        return envelope


async def order(
    verb: str,
    run: str,
    signing: SigningOptions | None,
    reason: str | None,
    *,
    trust: Path | None,
    print_only: bool,
    ask: bool = False,
    json: bool | None,
) -> None:
    """Sign and send an order.

    Args:
        verb: ``abort``, ``hold``, ``resume``, ``retry``, ``rollback``, ``skip`` or ``promote``.
        run: workflow id or change request.
        signing: how it is signed; None: the message goes unsigned, and the run says whether it obeys.
        reason: why; None: what the statement says that was signed elsewhere, else that it is by hand.
        trust: trust policy; default by settings.
        print_only: print the message instead of sending it.
        ask: ask before signing.
        json: value of ``--json/--text``.

    Raises:
        UntrustedError: the key belongs to nobody in the run's environment who may give this order.
        NotYetError: the run does not know yet what it is about.
        ConflictError: the run has ended, or is no rollback.
        MessageRefusedError: the run refused the order.
    """
    configured = settings()
    signer = None if signing is None else Signer.read(verb, signing, configured, trust)
    connected, workflow_id = await run_named(run, configured)
    if signer is None:
        unsigned = ReasonedMessage if verb in {"abort", "hold"} else SteerMessage
        message: Model = unsigned(reason=reason or f"{verb} by hand")
        await send(connected, workflow_id, verb, message, json)
        return
    status = await connected.status(workflow_id)
    envelope = signed(verb, workflow_id, status, signer, reason, yes=not ask, json=json)
    if envelope is None:
        return
    message = OrderMessage(order=envelope)
    if print_only:
        result(message.model_dump(mode="json"), [message.model_dump_json()], json)
        progress(f"send it to {workflow_id} under the name {verb}, as update or signal: its input is what was printed")
        return
    await send(connected, workflow_id, verb, message, json)


def signed(
    verb: str,
    workflow_id: str,
    status: Status,
    signer: Signer,
    reason: str | None,
    *,
    yes: bool = True,
    json: bool | None = None,
) -> Envelope | None:
    """Show what is signed, ask unless ``yes``, and sign it; None where its statement was written down."""
    if status.environment is None or status.update_id is None:
        raise NotYetError(
            f"{workflow_id} does not know yet what it is about", hint=f"constitution status {shlex.quote(workflow_id)}"
        )
    if status.environment != signer.policy.environment:
        raise UntrustedError(
            f"{workflow_id} is of {status.environment}, this trust policy of {signer.policy.environment}"
        )
    step, what = status.step if verb in {"skip", "retry"} else None, ""
    if verb == "rollback":
        if status.undoes is None:
            raise ConflictError(
                f"{workflow_id} undoes nothing: it is no rollback, or has not begun to look",
                hint=f"constitution status {shlex.quote(workflow_id)}",
            )
        step = step_of(status.undoes)
    if verb == "resume":
        if not status.held:
            raise ConflictError(
                f"nothing holds {workflow_id}: there is nothing to resume",
                hint=f"constitution status {shlex.quote(workflow_id)}",
            )
        step, what = status.held[0].name, f" ({status.held[0].why})"
    predicate = signer.predicate(verb, workflow_id=workflow_id, update_id=status.update_id, step=step, reason=reason)
    progress(signer.signing.begins)
    progress(f"  {verb}{' ' + step if step else ''}{what} of {workflow_id} in {status.environment}: {predicate.reason}")
    if (question := signer.signing.asks("order")) is not None:
        confirm(question, yes=yes)
    return signer.envelope(predicate, json)


async def send(connected: Runs, workflow_id: str, verb: str, message: Model, json: bool | None) -> None:
    """Send a message, and say what the run answers; the same signed one again runs once."""
    digest = checksum_of(message.model_dump_json().encode()) if isinstance(message, OrderMessage) else None
    answer = await connected.send(workflow_id, verb, message, update_id=digest)
    result(
        {"workflow_id": workflow_id, "message": verb, "answer": answer},
        [f"{verb}: {answer}", f"next: constitution watch {shlex.quote(workflow_id)}"],
        json,
    )
