"""Signed orders to a running workflow: skip a stuck step of the records, promote before the watch ends."""

import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

from constitution.errors import NotYetError, UntrustedError
from constitution.messages import PromoteMessage, SkipMessage
from constitution.trust.approval import OrderPredicate
from constitution_client.connections import run_named, trust_policy
from constitution_client.keys import PersonKey
from constitution_client.output import progress, result
from constitution_client.prompting import confirm
from constitution_client.settings import settings
from signatures.statements import sign_order

ORDER_VALID = timedelta(hours=1)  # an order is about now; a stale one must not act on a later stuck step


async def order(
    verb: str,
    run: str,
    key: Path,
    reason: str,
    *,
    trust: Path | None,
    print_only: bool,
    yes: bool,
    json: bool | None,
) -> None:
    """Sign and send an order.

    Args:
        verb: ``skip`` or ``promote``.
        run: workflow id or change request.
        key: the board member's secret key file.
        reason: why.
        trust: trust policy; default by settings.
        print_only: print the message instead of sending it.
        yes: do not ask.
        json: value of ``--json/--text``.

    Raises:
        UntrustedError: the key belongs to no board member of the run's environment.
        NotYetError: the run does not know yet what it is about.
        MessageRefusedError: the run refused the order.
    """
    configured = settings()
    policy = trust_policy(configured, trust)
    signer = PersonKey.read(key)
    person = signer.board_member(policy)
    connected, workflow_id = await run_named(run, configured)
    status = await connected.status(workflow_id)
    if status.environment is None or status.update_id is None:
        raise NotYetError(
            f"{workflow_id} does not know yet what it is about", hint=f"constitution status {shlex.quote(workflow_id)}"
        )
    if status.environment != policy.environment:
        raise UntrustedError(f"{workflow_id} is of {status.environment}, this trust policy of {policy.environment}")
    step = status.step if verb == "skip" else None
    progress(f"you are {person.name} ({person.id}); you are about to sign:")
    progress(f"  {verb}{' step ' + step if step else ''} of {workflow_id} in {status.environment}: {reason}")
    confirm("Sign this order?", yes=yes)
    now = datetime.now(UTC)
    predicate = OrderPredicate(
        environment=status.environment,
        workflow_id=workflow_id,
        update_id=status.update_id,
        order=verb,
        step=step,
        reason=reason,
        issued_at=now,
        expires_at=now + ORDER_VALID,
    )
    envelope = signer.sign(lambda tsk, password: sign_order(predicate, tsk, password))
    message = SkipMessage(order=envelope) if verb == "skip" else PromoteMessage(order=envelope)
    if print_only:
        result(message.model_dump(mode="json"), [message.model_dump_json()], json)
        return
    answer = await connected.send(workflow_id, verb, message)
    result(
        {"workflow_id": workflow_id, "message": verb, "answer": answer},
        [f"{verb}: {answer}", f"next: constitution watch {shlex.quote(workflow_id)}"],
        json,
    )
