"""What a rollback or withdraw takes beside the approvals that authorise it in advance: somebody's word, or none.

The undo of an unconfirmed release by its own update needs nobody; so does anybody's, once it should long have been
confirmed, by this service's clock. Everything else was ordered by an operator, for this very rollback, or decided by
as many board members as it takes. Whoever holds a worker's token can thus undo nothing that was confirmed.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from adapters.postgres import Connection
from constitution.errors import Issue, NotApprovedError, UntrustedError
from constitution.release import Envelope, Release
from constitution.rollback_plan import confirm_by, step_of
from constitution.trust import approval_rules
from constitution.trust.approval import ApprovalPredicate
from constitution.trust.approval_rules import Binding
from services.constitution_service.context import Context
from services.constitution_service.tables import orders
from signatures.approved import approved
from signatures.statements import verify_approval, verify_order


async def require_order(
    connection: Connection, context: Context, bad: Release, update_id: str, *, at: datetime, now: datetime
) -> None:
    """Demand that a release may be undone without a quorum of the board.

    Args:
        connection: of the transaction.
        context: of the service.
        bad: what is undone.
        update_id: of the rollback.
        at: when the order must not have expired: when the lease is, or was, taken.
        now: the database's time.

    Raises:
        NotApprovedError: nobody ordered it whose order counts; with what is wrong about those who did.
    """
    if bad.standing is None and update_id == bad.update_id:
        return
    if context.config.environment.unsigned_steering == "allow":
        return
    if bad.standing is None and now >= await _confirm_by(context, bad):
        return
    issues = []
    for row in await orders.of_update(connection, context.environment, update_id):
        if row.envelope is None or row.record.order != "rollback":
            continue
        try:  # a row proves nothing: its signature is looked at again
            person, said = await asyncio.to_thread(verify_order, row.envelope, context.trust, at)
            approval_rules.check_order(
                person,
                said,
                trust=context.trust,
                environment=context.environment,
                workflow_id=said.workflow_id,
                update_id=update_id,
                order="rollback",
                step=step_of(bad.generation),
                now=at,
            )
        except (UntrustedError, NotApprovedError) as error:
            issues += [Issue(code="order", message=error.message), *error.issues]
        else:
            return
    raise NotApprovedError(
        f"nobody has ordered rollback {update_id} to undo generation {bad.generation}: it takes an operator's signed "
        "order",
        issues=issues,
        hint=f"constitution rollback --bad-generation {bad.generation} --reason 'why'",
    )


async def is_decided(context: Context, bad: Release, envelopes: Sequence[Envelope], now: datetime) -> bool:
    """Whether as many board members as it takes have signed that this release is undone."""
    return await asyncio.to_thread(_is_decided, context, bad, envelopes, now)


def _is_decided(context: Context, bad: Release, envelopes: Sequence[Envelope], now: datetime) -> bool:
    decisions: list[tuple[str, ApprovalPredicate]] = []
    for envelope in envelopes:
        try:
            decisions.append(verify_approval(envelope, context.trust, now))
        except UntrustedError:
            continue
    thresholds = context.trust.thresholds
    for kind, checksum in {(said.kind, said.checksum) for _, said in decisions if said.kind.undoes}:
        binding = Binding(kind=kind, environment=context.environment, checksum=checksum, rollback_of=bad.generation)
        threshold = thresholds.withdraw if checksum is None else thresholds.rollback
        try:
            approval_rules.count(
                decisions, binding=binding, trust=context.trust, threshold=threshold, author=None, now=now
            )
        except NotApprovedError:
            continue
        return True
    return False


async def _confirm_by(context: Context, bad: Release) -> datetime:
    said = await asyncio.to_thread(approved, bad, context.trust)
    watch = 0 if said is None or said.plan is None else said.plan.watch.watch_seconds
    return confirm_by(bad.effective_at, watch, context.config.environment.deadlines)
