"""The plan of an update: resolved once at the start, then carried by every step. No bytes, no secrets."""

from datetime import datetime

from constitution.checksum import Checksum
from constitution.environment import Deadlines, Identifier, Strategy
from constitution.model import Model
from constitution.release import Kind, Previous
from constitution.trust.plan import Plan


class UpdatePlan(Model):
    """The document, the change request and the live release that the update was prepared against.

    Args:
        rings: where it goes live.
        not_before: goes live at this moment at the earliest, as the run's starter asked.
        expected_generation: the environment's highest generation when this was resolved.
        approvals_needed: board members needed (threshold ``approval``, or ``first_release``).
        links: addresses for people, by name.
        document: name in the inbox, when the update was started by name; null when by checksum.
        signatures: names in the inbox that go with ``document``.
    """

    update_id: str
    workflow_id: str
    run_id: str
    environment: str
    kind: Kind
    checksum: Checksum
    version: str
    title: str
    summary: str
    previous: Previous | None
    effective_at: datetime | None
    expires_at: datetime
    change_request: str
    author: str
    reason: str
    rings: tuple[str, ...]
    expected_generation: int
    approvals_needed: int
    strategy_name: Identifier
    strategy: Strategy
    not_before: datetime | None
    deadlines: Deadlines
    channel: str
    links: dict[str, str]
    document: str | None = None
    signatures: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        """The part of it that the board signs beside the document."""
        return Plan(
            update_id=self.update_id,
            strategy=self.strategy_name,
            watch=self.strategy,
            rings=self.rings,
            not_before=self.not_before,
        )

    @property
    def first(self) -> bool:
        """Whether nothing has been live before: no baseline to watch, undone by a withdraw."""
        return self.previous is None
