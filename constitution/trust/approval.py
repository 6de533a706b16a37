"""Approvals: what a board member signs. An in-toto Statement v1 in RFC 8785 bytes inside a DSSE envelope."""

from datetime import datetime
from enum import StrEnum

from constitution.checksum import Checksum
from constitution.model import Model
from constitution.release import Kind, Previous
from constitution.trust.plan import Plan

APPROVAL_PREDICATE = "urn:somaagenthub:constitution:approval:v1"
"""``predicateType`` of a decision about a release."""

ORDER_PREDICATE = "urn:somaagenthub:constitution:order:v1"
"""``predicateType`` of a signed order to a running workflow."""

BOARD_ORDERS = frozenset({"skip", "promote", "confirm", "poison", "withdraw"})
"""What a board member orders."""

OPERATOR_ORDERS = frozenset({"hold", "resume", "retry", "abort", "rollback"})
"""What an operator orders."""


class BoardDecision(StrEnum):
    """What the board member decided."""

    APPROVE = "approve"
    DENY = "deny"


class ApprovalPredicate(Model):
    """A decision, bound to everything that could be swapped under it.

    For ``kind`` update: ``checksum``/``version``/``previous`` of the document, the change request and the evidence
    digest, and the plan: which run makes it live, where, when, and how it is watched. It also pre-authorises the
    rollback from ``checksum`` to ``previous`` (withdraw if ``previous`` is null) until the next confirmed release, or
    72 h after confirmation. For ``kind`` rollback or withdraw: ``rollback_of`` is the bad generation, ``checksum`` what
    to restore (null: withdraw); ``evidence``, ``change_request`` and ``plan`` null.
    """

    kind: Kind
    environment: str
    checksum: Checksum | None
    version: str | None
    previous: Previous | None
    change_request: str | None
    evidence: Checksum | None
    plan: Plan | None = None
    rollback_of: int | None = None
    decision: BoardDecision
    reason: str
    issued_at: datetime
    expires_at: datetime


class OrderPredicate(Model):
    """A signed order to one run; it counts once, until it expires.

    By an operator: ``hold``, ``resume`` (the step names what it answers, constitution/trust/hold_rules.py), ``retry``
    (of the step named), ``abort``, ``rollback`` (``update_id`` is the rollback's own, the step ``generation-<number>``
    is what it undoes). By a board member: ``skip``, ``promote``; and
    about the release that the run made ``confirm``, ``poison`` and ``withdraw``, with ``generation-<number>`` as the
    step.
    """

    environment: str
    workflow_id: str
    update_id: str
    order: str
    step: str | None = None
    reason: str
    issued_at: datetime
    expires_at: datetime
