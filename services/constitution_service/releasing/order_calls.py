"""Accepts what a person orders a run to do, once, before the run obeys; audited with the name in the signature.

An operator's order takes the role *operator*, a board member's the role *board* (approval_rules.py). A message that
nobody signed is accepted only where environment.toml allows it, and is audited as unsigned.
"""

import asyncio
import shlex
from datetime import datetime

from constitution.api import OrderRecord, OrderRequest
from constitution.checksum import checksum_of
from constitution.errors import InvalidRequestError, NotApprovedError, UntrustedError
from constitution.trust import approval_rules
from constitution.trust.approval import BOARD_ORDERS, OPERATOR_ORDERS
from services.constitution_service.audit import audit_events
from services.constitution_service.context import Context
from services.constitution_service.tables import leases, orders
from services.constitution_service.tables.clock import now_of
from signatures.dsse import decode_base64
from signatures.statements import verify_order

UNSIGNED = "unsigned"
"""Who gave an order that nobody signed, in the audit stream."""


async def accept(context: Context, request: OrderRequest, client: str) -> OrderRecord:
    """Accept an order, or say again what this very attempt was told.

    Raises:
        NotApprovedError: it is not signed by somebody who may give it, not for this run, verb and step, or expired.
        OrderUsedError: it was obeyed before.
        InvalidRequestError: there is no such order to a run.
    """
    if request.order not in OPERATOR_ORDERS | BOARD_ORDERS:
        raise InvalidRequestError(f"{request.order[:64]!r} is no order to a run")
    environment = context.environment
    async with context.database.transaction() as connection:
        await leases.lock(connection, environment)  # a hold and the confirmation that it forbids never cross
        moment = await now_of(connection)
        person, reason, digest = await asyncio.to_thread(_signed, context, request, moment)
        added = await orders.append(connection, environment, request, digest=digest, person=person, reason=reason)
        if added is None:
            return await orders.read(connection, environment, digest)
        await audit_events.decision(
            connection,
            context,
            activity=f"order.{request.order}",
            actor=person or UNSIGNED,
            message=f"{request.order} of {request.workflow.workflow_id} by {person or 'an unsigned message'}: {reason}",
            update_id=request.update_id,
            workflow=request.workflow,
            details={"step": request.step, "signed": person is not None, "client": client},
        )
    return added


def _signed(context: Context, request: OrderRequest, moment: datetime) -> tuple[str | None, str, str]:
    """Return who ordered, why, and by what name the order is kept."""
    if request.envelope is None:
        if context.config.environment.unsigned_steering != "allow" or request.order not in OPERATOR_ORDERS:
            raise NotApprovedError(
                f"an unsigned {request.order} is not obeyed: it takes an operator's signed order",
                hint=f"constitution order {request.order} {shlex.quote(request.workflow.workflow_id)}",
            )
        place = f"{request.update_id}\n{request.attempt}"
        return None, request.reason or request.order, checksum_of(place.encode())
    try:
        person, predicate = verify_order(request.envelope, context.trust, moment)
    except UntrustedError as error:
        raise NotApprovedError(f"this order does not count: {error.message}", issues=error.issues) from error
    approval_rules.check_order(
        person,
        predicate,
        trust=context.trust,
        environment=context.environment,
        workflow_id=request.workflow.workflow_id,
        update_id=request.update_id,
        order=request.order,
        step=request.step,
        now=moment,
    )
    # Of the payload, not of the envelope: a signature can be written in more than one way.
    said = person.encode() + b"\n" + decode_base64(request.envelope.payload, "the order")
    return person, predicate.reason, checksum_of(said)
