"""An operator's order to a run: judged here by the worker's own trust policy, then accepted by constitution-service.

The service keeps each order once, and with it every hold and what ends it: a result of this activity that somebody made
up makes a run try a step again or undo what is unconfirmed, and confirms and rolls back nothing (invariant 5).
"""

import asyncio
from datetime import UTC, datetime

from temporalio import activity

from activities.decisions import judge_order
from activities.failures import classified
from activities.keys import require_environment
from activities.ports import ActivityConfig, ConstitutionService
from constitution.api import OrderRequest, WorkflowRef
from constitution.checksum import Checksum
from constitution.messages import Held, Reason
from constitution.model import Model
from constitution.release import Envelope
from constitution.trust import hold_rules


class SteerInput(Model):
    """What a person orders this run to do; without ``envelope`` nobody signed it.

    ``step``: what the order is about: the step to try again, the hold to end, the generation to undo.
    """

    environment: str
    update_id: str
    order: str
    step: str | None = None
    envelope: Envelope | None = None
    reason: Reason | None = None


class Ordered(Model):
    """An order that was accepted; ``person`` is null where nobody signed it. ``digest`` is what it is kept by."""

    digest: Checksum
    person: str | None
    reason: str

    @property
    def by(self) -> str:
        """Who ordered, in words that follow "by"."""
        return self.person or "an unsigned message"


class FindHolds(Model):
    """Which update's holds to find."""

    environment: str
    update_id: str


class StandingHolds(Model):
    """The operators' holds that nobody has ended, oldest first."""

    held: tuple[Held, ...]


class Orders:
    """Accepts orders, and finds those that stand."""

    def __init__(self, *, service: ConstitutionService, config: ActivityConfig) -> None:
        self._service = service
        self._config = config

    @activity.defn
    @classified
    async def accept_order(self, x: SteerInput) -> Ordered:
        """Accept an operator's order to this run, or refuse it.

        Twice, or killed half-way: the service answers the same attempt alike. Late: the order has its own expiry.

        Raises:
            NotApprovedError: it is no operator's, not for this run, verb and step, expired, or unsigned where that is
                refused.
            OrderUsedError: it was obeyed before.
        """
        require_environment(self._config, x.environment)
        if x.envelope is not None:
            await asyncio.to_thread(
                judge_order,
                x.envelope,
                trust=self._config.trust,
                environment=x.environment,
                workflow_id=activity.info().workflow_id or "",
                update_id=x.update_id,
                order=x.order,
                step=x.step,
                now=datetime.now(UTC),
            )
        said = await self._service.accept_order(order_request(x))
        return Ordered(digest=said.digest, person=said.person, reason=said.reason)

    @activity.defn
    @classified
    async def find_holds(self, x: FindHolds) -> StandingHolds:
        """Return which operators' holds stand, as constitution-service knows them.

        Twice, killed half-way, or late: it only reads.
        """
        require_environment(self._config, x.environment)
        record = await self._service.update(x.update_id)
        promoters = self._config.trust.thresholds.override
        return StandingHolds(held=hold_rules.standing_holds(record.orders, promoters=promoters))


def order_request(x: SteerInput) -> OrderRequest:
    """Return what the service is asked; the attempt is this very activity, however often it is tried."""
    info = activity.info()
    return OrderRequest(
        update_id=x.update_id,
        workflow=WorkflowRef(workflow_id=info.workflow_id or "", run_id=info.workflow_run_id or ""),
        attempt=f"{info.workflow_run_id}/{info.activity_id}",
        order=x.order,
        step=x.step,
        envelope=x.envelope,
        reason=x.reason,
    )
