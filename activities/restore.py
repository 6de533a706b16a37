"""The rollback's own acts: fence, look, plan, load what was confirmed before."""

from temporalio import activity

from activities.failures import classified
from activities.ports import ConstitutionService, Deployment
from activities.publish import Published
from constitution.checksum import Checksum
from constitution.environment import Deadlines
from constitution.messages import RollbackRequest
from constitution.model import Model
from constitution.release import Envelope, Kind, Standing


class FenceInput(Model):
    """Who fences."""

    environment: str
    update_id: str
    workflow_id: str


class Fenced(Model):
    """The lease is ours. ``generation`` is an unconfirmed release of this update id, or null: it never published."""

    generation: int | None
    version: str | None
    checksum: Checksum | None
    fencing_token: int


class PlanInput(Model):
    """What to undo, as asked."""

    environment: str
    update_id: str
    request: RollbackRequest


class RollbackPlan(Model):
    """What a rollback will do.

    Args:
        bad_generation: the release to undo; null: this update published nothing, so there is nothing to undo.
        restore_generation: the confirmed release whose artifact is restored; null with kind ``withdraw``.
        already: generation of the release that undid it already.
        needs_quorum: no approval pre-authorises it: ``quorum`` board members must sign.
        standing_for_bad: ``poisoned`` after an anomaly, else ``withdrawn``.
    """

    environment: str
    update_id: str
    kind: Kind
    bad_generation: int | None
    bad_version: str | None
    bad_checksum: Checksum | None
    restore_generation: int | None
    version: str | None
    checksum: Checksum | None
    rings: tuple[str, ...]
    expected_generation: int
    already: int | None
    needs_quorum: bool
    quorum: int
    change_request: str | None
    summary: str
    approvers: tuple[str, ...]
    channel: str
    deadlines: Deadlines
    links: dict[str, str]
    standing_for_bad: Standing


class RestoreInput(Model):
    """Which plan to carry out, under which fencing token."""

    plan: RollbackPlan
    envelopes: tuple[Envelope, ...] = ()
    fencing_token: int
    reason: str
    workflow_id: str
    run_id: str


class Restore:
    """Undoes a release."""

    def __init__(self, *, service: ConstitutionService, deployment: Deployment) -> None:
        self._service = service
        self._deployment = deployment

    @activity.defn
    @classified
    async def fence_and_look(self, x: FenceInput) -> Fenced: ...
    @activity.defn
    @classified
    async def plan_rollback(self, x: PlanInput) -> RollbackPlan: ...
    @activity.defn
    @classified
    async def load_restored(self, x: RestoreInput) -> Published: ...
