"""Signed orders to a run: an operator's (abort, hold, resume, retry, rollback), a board member's (skip, promote)."""

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from constitution.checksum import checksum_of
from constitution.errors import ConflictError, NotYetError, UntrustedError
from constitution.messages import OrderMessage, ReasonedMessage, Status, SteerMessage
from constitution.model import Model
from constitution.release import Envelope
from constitution.rollback_plan import step_of
from constitution.trust.approval import BOARD_ORDERS, OrderPredicate
from constitution.trust.trust_policy import Person, TrustPolicy
from constitution_client.connections import run_named, trust_policy
from constitution_client.keys import PersonKey
from constitution_client.output import progress, result
from constitution_client.prompting import confirm
from constitution_client.settings import ClientSettings, settings
from constitution_client.temporal import Runs
from signatures.statements import sign_order

ORDER_VALID = timedelta(hours=1)  # an order is about now; a stale one must not act on a later stuck step


@dataclass(frozen=True, slots=True)
class Signer:
    """A person with their key, as the trust policy knows them."""

    key: PersonKey
    person: Person
    policy: TrustPolicy

    @classmethod
    def read(cls, verb: str, path: Path, configured: ClientSettings, trust: Path | None) -> "Signer":
        """Read a key file.

        Raises:
            UntrustedError: the key belongs to nobody who may give this order.
        """
        policy = trust_policy(configured, trust)
        key = PersonKey.read(path)
        return cls(key, key.with_role("board" if verb in BOARD_ORDERS else "operator", policy), policy)

    def order(self, verb: str, *, workflow_id: str, update_id: str, step: str | None, reason: str) -> Envelope:
        """Sign an order."""
        now = datetime.now(UTC)
        predicate = OrderPredicate(
            environment=self.policy.environment,
            workflow_id=workflow_id,
            update_id=update_id,
            order=verb,
            step=step,
            reason=reason,
            issued_at=now,
            expires_at=now + ORDER_VALID,
        )
        return self.key.sign(lambda tsk, password: sign_order(predicate, tsk, password))


async def order(
    verb: str,
    run: str,
    key: Path | None,
    reason: str,
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
        key: the person's secret key file; None: the message goes unsigned, and the run says whether it obeys.
        reason: why.
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
    signer = None if key is None else Signer.read(verb, key, configured, trust)
    connected, workflow_id = await run_named(run, configured)
    if signer is None:
        message: Model = (ReasonedMessage if verb in {"abort", "hold"} else SteerMessage)(reason=reason)
        await send(connected, workflow_id, verb, message, json)
        return
    status = await connected.status(workflow_id)
    message = OrderMessage(order=signed(verb, workflow_id, status, signer, reason, yes=not ask))
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
    reason: str,
    *,
    yes: bool = True,
) -> Envelope:
    """Show what is signed, ask unless ``yes``, and sign it."""
    if status.environment is None or status.update_id is None:
        raise NotYetError(
            f"{workflow_id} does not know yet what it is about", hint=f"constitution status {shlex.quote(workflow_id)}"
        )
    if status.environment != signer.policy.environment:
        raise UntrustedError(
            f"{workflow_id} is of {status.environment}, this trust policy of {signer.policy.environment}"
        )
    step = status.step if verb in {"skip", "retry"} else None
    if verb == "rollback":
        if status.undoes is None:
            raise ConflictError(
                f"{workflow_id} undoes nothing: it is no rollback, or has not begun to look",
                hint=f"constitution status {shlex.quote(workflow_id)}",
            )
        step = step_of(status.undoes)
    progress(f"you are {signer.person.name} ({signer.person.id}); you sign:")
    progress(f"  {verb}{' ' + step if step else ''} of {workflow_id} in {status.environment}: {reason}")
    confirm("Sign this order?", yes=yes)
    return signer.order(verb, workflow_id=workflow_id, update_id=status.update_id, step=step, reason=reason)


async def send(connected: Runs, workflow_id: str, verb: str, message: Model, json: bool | None) -> None:
    """Send a message, and say what the run answers; the same signed one again runs once."""
    digest = checksum_of(message.model_dump_json().encode()) if isinstance(message, OrderMessage) else None
    answer = await connected.send(workflow_id, verb, message, update_id=digest)
    result(
        {"workflow_id": workflow_id, "message": verb, "answer": answer},
        [f"{verb}: {answer}", f"next: constitution watch {shlex.quote(workflow_id)}"],
        json,
    )
